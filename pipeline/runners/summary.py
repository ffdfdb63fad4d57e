"""What a run came to, for people and for machines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.lake.upsert import Upserted
from pipeline.records import FailureKind
from pipeline.remedies import REMEDIES
from pipeline.runners.receipt import Receipt
from pipeline.terminal import counted

STAGES = ("rasterize", "encode", "generate", "parse", "write")


@dataclass(frozen=True, slots=True)
class Summary:
    """Documents and pages are those of this run's input; of an ingest, those that it took in.

    `pages` and `documents` count states; `looks` counts the samples of the whole table by how often
    the model was shown them; `documents_known` were planned by an earlier run and not
    read to be planned again; `skipped` are pages that the selection leaves out or that
    were finished before; `table` is what the lake table came to, if the job has one; `listed`
    counts an ingest's input by what it was to the table, and without a `run_id` there was nothing
    new in it; `seconds` are a stage's, summed over all workers, for the pages done now;
    `partitioned` documents lie in folders.
    """

    run_id: str | None
    output: str
    documents: Mapping[str, int]
    pages: Mapping[str, int]
    failures: Mapping[str, int]
    looks: Mapping[str, int]
    done: Receipt
    documents_known: int = 0
    pages_reused: int = 0
    files_ignored: int = 0
    documents_carried: int = 0
    table: Upserted | None = None
    listed: Mapping[str, int] = field(default_factory=dict)
    wall_s: float = 0.0
    warnings: tuple[str, ...] = field(default=())
    partitioned: bool = False

    @property
    def all_ok(self) -> bool:
        """True if every document of the input ended ok."""
        return set(self.documents) <= {"ok"}

    def to_json(self) -> str:
        """Return the summary as one JSON object."""
        return json.dumps({**asdict(self), "all_ok": self.all_ok})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json` back; keys of other versions are left out. Raises ValueError."""
        try:
            found = json.loads(text)
            known = {field.name: found[field.name] for field in fields(cls) if field.name in found}
            known["done"] = Receipt(**found["done"])
            if known.get("table") is not None:
                known["table"] = Upserted(**known["table"])
            return cls(**known)
        except (TypeError, LookupError, RecursionError) as error:
            raise ValueError("it is no summary") from error

    def print(self, console: Console) -> None:
        """Print the closing table; of an ingest without anything new, a line."""
        if self.run_id is None:
            text = f"nothing new: {counted(self.listed['unchanged'], 'document')} as before"
            console.print(f"{text} ({self.wall_s:.1f} s)", highlight=False)
            if self.table is not None and self.table.committed:
                text = f"the table lacked what an earlier run made: {_table(self.table)}"
                console.print(text, highlight=False, markup=False, soft_wrap=True)
            return
        table = Table(title=f"run {self.run_id}", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column()
        if self.listed:
            parts = [f"{count:,} {what}" for what, count in self.listed.items() if count]
            table.add_row("listed", ", ".join(parts))
        table.add_row("documents", _states(self.documents))
        if self.documents_known:
            table.add_row("", f"{self.documents_known:,} of them were known and not counted again")
        table.add_row("pages", _states(self.pages))
        if self.pages_reused:
            table.add_row("", f"{self.pages_reused:,} of them were finished by an earlier run")
        if twice := self.looks.get("2"):
            text = f"{twice:,} of {sum(self.looks.values()):,} samples, in doubt at first"
            table.add_row("looked at twice", text)
        for kind, count in sorted(self.failures.items()):
            table.add_row(f"{count:,} x {kind}", REMEDIES[FailureKind(kind)])
        if self.files_ignored:
            table.add_row("ignored", f"{counted(self.files_ignored, 'file')} of other types")
        if self.documents_carried:
            table.add_row("kept", f"{counted(self.documents_carried, 'document')} of earlier runs")
        if self.table is not None:
            table.add_row("table", Text(_table(self.table)))
        wall = f"{self.wall_s:.1f} s, start-up included"
        if self.done.pages:
            table.add_row("pages/s a worker", self._rates())
            wall += f": {self.done.pages / self.wall_s:.2g} pages/s"
        table.add_row("wall", wall)
        table.add_row("output", Text(self.output))
        console.print(table)
        console.print("read it:  " + self.query(), highlight=False, markup=False, soft_wrap=True)

    def query(self) -> str:
        """Return a DuckDB command line that reads the documents."""
        files = "**/*.parquet" if self.partitioned else "*.parquet"
        glob = f"{self.output.rstrip('/')}/documents/{files}".replace("'", "''")
        return f"duckdb -c \"FROM '{glob}' SELECT uri, state, unnest(record) LIMIT 10\""

    def _rates(self) -> str:
        return ", ".join(
            f"{stage} {self.done.pages / self.done.seconds[stage]:,.1f}"
            for stage in STAGES
            if self.done.seconds.get(stage)
        )


def _table(done: Upserted) -> str:
    counts = f"{done.inserted:,} inserted, {done.replaced:,} replaced, {done.unchanged:,} unchanged"
    snapshot = f"snapshot {done.snapshot}" if done.committed else "no new snapshot"
    return f"{done.table}: {counts} ({snapshot})"


def _states(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    parts = [f"{counts[state]:,} {state}" for state in sorted(counts, key=_order) if counts[state]]
    return f"{total:,}: " + ", ".join(parts) if total else "none"


def _order(state: str) -> int:
    return ("ok", "truncated", "partial", "failed").index(state)
