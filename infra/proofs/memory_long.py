"""A long run needs no more memory at its end than early on.

    python infra/proofs/memory_long.py --documents 5000

One `pagelake run` with Ray reads small images and PDFs of three pages with the weightless `fake`
model; one document in 200 is a bomb that kills its renderer, which is started anew. The memory of
the whole process tree, Ray's daemons and the object store included, is sampled beside the documents
that are committed. Exits 1 if the median around the last document is 5% or more above that around
document 1,000. Linux only; takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from piles import make_pile

sys.path.append(str(Path(__file__).parents[1] / "bench"))
sys.path.append(str(Path(__file__).parents[2] / "tests" / "faults"))
import poison_pdf
from process_tree import MARKER, ProcessTree, Sample, take_sample

SHARES = {"image": 75, "pdf": 25}
CRASHES_ONE_IN = 200
EARLY = 1000
HALF_WINDOW = 100
ALLOWED = 0.05
_AFTER = 60  # documents that follow the last window, so that it is no part of the run's end
_MIB = 1 << 20
_JOB = """\
input: {{paths: [{pile}]}}
task: ocr
model: {{family: fake, name: "fake?edge={edge}"}}
render: {{cpu_s: 1, memory_mb: 64}}
output: {{uri: {output}}}
"""


@dataclass
class Committed:
    """The pages and documents that lie in an output, counted as their commits come."""

    output: Path
    pages: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    _documents: set[str] = field(default_factory=set)
    _read: set[str] = field(default_factory=set)

    def count(self) -> int:
        """Return how many documents have a page that is committed."""
        for commit in (self.output / "_pagelake" / "commits").glob("*.json"):
            if commit.name not in self._read:
                self._take(json.loads(commit.read_text()))
                self._read.add(commit.name)
        return len(self._documents)

    def _take(self, commit: dict[str, object]) -> None:
        columns = ["document_id", "failure_kind"]
        table = pq.read_table(self.output / str(commit["file"]), columns=columns)
        self.pages += table.num_rows
        self._documents.update(pc.unique(table["document_id"]).to_pylist())
        self.failures.update(table["failure_kind"].drop_null().to_pylist())


@dataclass(frozen=True)
class Moment:
    """What the process tree held when so many documents were committed."""

    documents: int
    sample: Sample

    def row(self) -> dict[str, float]:
        return {"at_s": round(self.sample.at_s, 2), "documents": self.documents} | dict(
            self.sample.groups
        )


def write_pile(folder: Path, n_documents: int, seed: int) -> None:
    """Write documents no two of which are alike; some kill the process that draws them."""
    make_pile(folder, n_documents, seed, SHARES)
    bomb = poison_pdf.zip_bomb()
    for number, path in enumerate(sorted(folder.iterdir())):
        if number % CRASHES_ONE_IN == CRASHES_ONE_IN // 2:
            path.unlink()
            path.with_suffix(".pdf").write_bytes(bomb + b"%% %d\n" % number)


def run(folder: Path, pile: Path, edge: int, every_s: float) -> tuple[list[Moment], Committed]:
    """Run to the end, and watch."""
    output, job, log = folder / "out", folder / "job.yaml", folder / "log"
    job.write_text(_JOB.format(pile=pile, edge=edge, output=output))
    mark = secrets.token_hex(8)
    command = [sys.executable, "-m", "pipeline.cli", "run", str(job), "--json"]
    started, moments, committed = time.monotonic(), [], Committed(output)
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | {MARKER: mark}
        )
        tree = ProcessTree(process.pid, f"{MARKER}={mark}")
        while process.poll() is None:
            before = committed.count()
            moments.append(Moment(before, take_sample(tree.pids(), time.monotonic() - started)))
            time.sleep(every_s)
    if process.returncode != 3:  # the bombs fail
        raise SystemExit(f"the run exited {process.returncode}:\n{log.read_text()[-2000:]}")
    return moments, committed


@dataclass(frozen=True)
class Flatness:
    """Medians by group of the moments around two numbers of documents."""

    moments: list[Moment]
    late: int

    @property
    def groups(self) -> list[str]:
        return sorted({group for moment in self.moments for group in moment.sample.groups})

    def window(self, documents: int) -> list[Sample]:
        low, high = documents - HALF_WINDOW, documents + HALF_WINDOW
        found = [m.sample for m in self.moments if low <= m.documents <= high]
        if not found:
            raise SystemExit(f"no sample between {low} and {high} documents; lower --every")
        return found

    def medians(self, documents: int) -> dict[str, float]:
        """Return MiB by group, and of `all`."""
        samples = self.window(documents)
        found = {g: statistics.median(s.groups[g] for s in samples) / _MIB for g in self.groups}
        return found | {"all": statistics.median(s.total for s in samples) / _MIB}

    @property
    def growth(self) -> float:
        return self.medians(self.late)["all"] / self.medians(EARLY)["all"] - 1

    def columns(self) -> Iterator[int]:
        """Yield the documents at which figures are told."""
        yield from range(EARLY, self.late, 1000)
        yield self.late

    def table(self) -> str:
        columns = list(self.columns())
        found = [self.medians(documents) for documents in columns]
        lines = ["MiB, medians around so many documents", f"{'':42}" + _row(columns)]
        lines += [f"{group:42}" + _row([one[group] for one in found]) for group in found[0]]
        lines += [f"{'samples':42}" + _row([len(self.window(documents)) for documents in columns])]
        return "\n".join(lines)


def _row(figures: list[float]) -> str:
    return "".join(f"{figure:9,.0f}" for figure in figures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=5000, help="more than 1,200")
    parser.add_argument("--edge", type=int, default=112, help="longest edge of a page, in pixels")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", type=Path, help="write every sample here, as JSON lines")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="pagelake-proof-") as name:
        folder = Path(name)
        write_pile(folder / "pile", options.documents + _AFTER, options.seed)
        moments, committed = run(folder, folder / "pile", options.edge, options.every)
    if options.trace:
        options.trace.write_text("".join(json.dumps(m.row()) + "\n" for m in moments))
    found = Flatness(moments, options.documents - HALF_WINDOW)
    flat = found.growth < ALLOWED
    if options.json:
        medians = {documents: found.medians(documents) for documents in found.columns()}
        print(json.dumps({"medians_mib": medians, "growth": found.growth, "flat": flat}))
    else:
        print(found.table())
        print(
            f"{committed.pages:,} pages in {moments[-1].sample.at_s:.0f} s, failures "
            f"{dict(committed.failures)}; growth {found.growth:+.1%}: {'flat' if flat else 'GROWN'}"
        )
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
