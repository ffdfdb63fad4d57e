"""What an ingest costs beside a table that is there already, and that it does not grow with it.

    python infra/proofs/ingest.py --documents 100 10000 100000

For each size: makes a folder of so many files and the finished output that a run over them leaves
(random texts of some hundred bytes, so that files have a real table's size). Then, as a scheduler
would, each in a process of its own: `pagelake ingest` with nothing new, and with one new document,
`--ingests` times. Prints seconds by the clock and of the processor, of whole processes, and their
children's. Exits 1 if a table does not hold every document once, if files grow in number, or if
the last third of the ingests took twice the processor of the first.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import PIL.Image
import pyarrow as pa

from pipeline.job import Job
from pipeline.lake.known import known_schema, version_keys, with_keys
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Counts, Ledger, Manifest
from pipeline.lake.parquet import write_tables
from pipeline.lake.plans import PLANS, documents_table, row_writer, run_file
from pipeline.lake.tables import documents_schema, pages_schema
from pipeline.lake.types import arrow_type
from pipeline.runners.claim import note
from pipeline.runners.recipe import prepare
from pipeline.stages.discover import Discovery

_RUN = "20260101T000000Z-000000"
_ROWS = 10_000
_TEXT_BYTES = 400


def make_files(inbox: Path, count: int) -> None:
    """Make so many small files; nobody will open them."""
    for number in range(count):
        folder = inbox / f"{number // 1000:04}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:07}.png").write_bytes(b"x")


def make_output(job: Job, count: int) -> None:
    """Write what a finished run over the job's input leaves."""
    recipe = prepare(job, _RUN)
    layout = recipe.layout
    layout.prepare()
    note(layout, recipe)
    record = arrow_type(recipe.schema.document)
    plan_file = run_file(_RUN, "plans")
    listed = documents_table(list(Discovery(job.input)))
    assert listed.num_rows == count
    random = np.random.default_rng(count)
    ids = pa.array([random.bytes(32).hex() for _ in range(count)], pa.string())
    plans = {name: listed[name] for name in listed.column_names}
    plans |= {"document_id": ids, "n_pages": 1, "page_numbers": [1]}
    with row_writer(layout, plan_file, known_schema(recipe.provenance.fingerprint)) as write:
        write(with_keys(_table(PLANS, count, plans), version_keys(listed)))

    def rows(schema: pa.Schema) -> Iterator[pa.Table]:
        for start in range(0, count, _ROWS):
            size = min(_ROWS, count - start)
            texts = [random.bytes(_TEXT_BYTES // 2).hex() for _ in range(size)]
            shared: dict[str, Any] = {
                **{name: getattr(recipe.provenance, name) for name in _PROVENANCE},
                "document_id": ids.slice(start, size),
                "uri": listed["uri"].slice(start, size).combine_chunks(),
                "n_pages": 1,
                "state": "ok",
                "record": pa.array([{"text": text} for text in texts], record),
                "record_json": pa.array([json.dumps({"text": text}) for text in texts]),
                "processed_at": datetime.now(UTC),
                "page_numbers": [1],
                "raw_text": pa.array(texts),
            }
            yield _table(schema, size, shared)

    made = {
        table: tuple(write_tables(layout, f"{table}/{_RUN}", schema, rows(schema)))
        for table, schema in (
            ("pages", pages_schema(record)),
            ("documents", documents_schema(record)),
        )
    }
    Ledger(layout).publish(
        Manifest(
            provenance=recipe.provenance,
            schema=recipe.schema.document,
            runs=(_RUN,),
            plans=(plan_file,),
            counts=Counts({"ok": count}, {"ok": count}),
            finished_at=datetime.now(UTC),
            **made,
        )
    )


_PROVENANCE = ("task", "schema_id", "model_id", "model_revision", "run_id", "fingerprint")


def _table(schema: pa.Schema, n_rows: int, columns: dict[str, Any]) -> pa.Table:
    def column(field: pa.Field) -> pa.Array:
        value = columns.get(field.name, [] if pa.types.is_map(field.type) else None)
        if isinstance(value, pa.Array | pa.ChunkedArray):
            return value.cast(field.type)
        return pa.array([value] * n_rows, field.type)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


@dataclass(frozen=True)
class Ingest:
    """One ingest: its summary, and the seconds of its process and those below it."""

    summary: dict[str, Any]
    wall_s: float
    cpu_s: float


def ingest(job_file: Path, runner: str) -> Ingest:
    """Ingest in a process of its own."""
    command = [sys.executable, "-m", "pipeline.cli", "ingest", str(job_file), "--json"]
    began, cpu_before = time.monotonic(), _children_cpu_s()
    done = subprocess.run([*command, "--runner", runner], capture_output=True, text=True)
    wall_s = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(f"exit code {done.returncode}: {done.stderr}")
    return Ingest(json.loads(done.stdout), wall_s, _children_cpu_s() - cpu_before)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(count: int, ingests: int, runner: str, folder: Path) -> list[str]:
    """Measure one size; return what is wrong."""
    inbox, output = folder / "in", folder / "out"
    make_files(inbox, count)
    settings = {
        "input": {"paths": [str(inbox)]},
        "task": "ocr",
        "model": {"family": "fake", "name": "fake?edge=224"},
        "output": {"uri": str(output)},
    }
    job = Job.model_validate(settings)
    make_output(job, count)
    job_file = folder / "job.yaml"
    job_file.write_text(json.dumps(settings))
    sizes = {f"{table}_mb": _megabytes(output / table) for table in ("pages", "documents")}

    idle = [ingest(job_file, runner) for _ in range(3)]
    wrong = [f"{one.summary['listed']}" for one in idle if one.summary["run_id"] is not None]
    busy = []
    for number in range(ingests):
        PIL.Image.new("L", (40, 30), number).save(inbox / f"new-{number:03}.png")
        busy.append(ingest(job_file, runner))
        found = busy[-1].summary
        if found["listed"]["new"] != 1 or found["documents"] != {"ok": 1}:
            wrong.append(f"ingest {number}: {found['listed']}, {found['documents']}")
    manifest = Ledger(Layout.open(str(output))).manifest()
    assert manifest is not None
    files = (len(manifest.pages), len(manifest.documents), len(manifest.plans))
    if max(files) > 8:
        wrong.append(f"{files} files")
    ((rows, uris),) = duckdb.sql(
        f"SELECT count(*), count(DISTINCT uri) FROM '{output}/documents/*.parquet'"
    ).fetchall()
    if not rows == uris == count + ingests:
        wrong.append(f"{rows} documents, {uris} uris, and {count + ingests} were to be there")
    third = max(1, ingests // 3)
    first, last = (_middle(one.cpu_s for one in some) for some in (busy[:third], busy[-third:]))
    if last > 2 * first:
        wrong.append(f"the first ingests took {first:.1f} s, the last ones {last:.1f} s")
    figures = {
        "documents": count,
        **sizes,
        "nothing_new": {
            "wall_s": _middle(one.wall_s for one in idle),
            "cpu_s": _middle(one.cpu_s for one in idle),
            "past_imports_wall_s": _middle(one.summary["wall_s"] for one in idle),
        },
        "one_new": {
            "wall_s": _middle(one.wall_s for one in busy),
            "first_cpu_s": first,
            "last_cpu_s": last,
        },
        "files": files,
    }
    print(json.dumps(figures), flush=True)
    return wrong


def _middle(seconds: Iterable[float]) -> float:
    return round(statistics.median(seconds), 2)


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.iterdir()) / 1e6, 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[100, 10_000, 100_000])
    parser.add_argument("--ingests", type=int, default=30)
    parser.add_argument("--runner", choices=("local", "ray"), default="local")
    chosen = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wrong = []
    for count in chosen.documents:
        with tempfile.TemporaryDirectory(prefix="pagelake-proof-") as folder:
            wrong += measure(count, chosen.ingests, chosen.runner, Path(folder))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
