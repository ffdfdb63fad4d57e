"""A hundred thousand documents through the whole Ray graph: the driver's memory stays flat.

    python infra/proofs/many_documents.py --documents 100000

Small images, no two alike, are read by the weightless `fake` model, which does not wait, so the
graph itself is what takes the time. The driver's own memory, the object store's file and the CPU
time of every kind of process are read every half second. Exits 1 if the driver grew by more than
a tenth between a fifth of the pages and all of them, or if the tables do not hold one row a
document. Linux only; `--pile DIR` keeps the documents for another time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

import pyarrow.dataset as ds
from piles import make_pile
from watched import Moment, Watched, watch

PAGES_A_COMMIT = 16
ALLOWED = 0.1
FROM = 0.2
"""The share of the pages from which on the driver may not grow: what is held once is held then."""

_MIB = 1 << 20
_JOB = """\
input: {{paths: [{pile}]}}
task: ocr
model: {{family: fake, name: "fake?edge=56"}}
output: {{uri: {output}}}
"""


@dataclass(frozen=True)
class Found:
    """What a run over many documents took."""

    documents: int
    rows: dict[str, int]
    planned_s: float
    """Seconds until the first commit: listing and planning all documents, and the start."""
    read_s: float
    """Seconds from the first commit to the last."""
    wall_s: float
    driver_mib: dict[int, float]
    """The driver's own memory when so many pages were committed."""
    growth: float
    store_peak_mib: float
    spent: dict[str, float]
    """CPU seconds of the whole run, by kind of process."""
    read_spent: dict[str, float]
    """CPU seconds from the first commit to the last, by kind of process."""

    @property
    def conserved(self) -> bool:
        """Whether every document has one row in each table."""
        return all(rows == self.documents for rows in self.rows.values())

    @property
    def flat(self) -> bool:
        """Whether the driver held as much at the end as early on."""
        return self.growth <= ALLOWED


def measure(folder: Path, pile: Path, documents: int) -> Found:
    """Run over a pile of so many documents of one page."""
    job, output = folder / "job.yaml", folder / "out"
    job.write_text(_JOB.format(pile=pile, output=output))
    watched = watch(job, output)
    rows = {name: ds.dataset(output / name).count_rows() for name in ("documents", "pages")}
    return reckon(watched, documents, rows)


def reckon(watched: Watched, documents: int, rows: dict[str, int]) -> Found:
    """Work out how the driver's memory went with the pages."""
    moments = _reading(watched.moments)
    commits = -(-documents // PAGES_A_COMMIT)

    def at(share: float) -> Moment:
        counts = [moment.commits for moment in moments]
        return moments[min(bisect_left(counts, share * commits), len(moments) - 1)]

    shares = [number / 10 for number in range(1, 11)]
    first, last = moments[0], moments[-1]
    return Found(
        documents=documents,
        rows=rows,
        planned_s=(first.at - watched.started).total_seconds(),
        read_s=(last.at - first.at).total_seconds(),
        wall_s=watched.wall_s,
        driver_mib={
            round(share * documents): at(share).driver_bytes / _MIB for share in (0.01, *shares)
        },
        growth=at(1.0).driver_bytes / at(FROM).driver_bytes - 1,
        store_peak_mib=max(moment.store_bytes for moment in watched.moments) / _MIB,
        spent=watched.moments[-1].spent,
        read_spent=last.since(first),
    )


def _reading(moments: list[Moment]) -> list[Moment]:
    """Return the moments from the first commit until all are there: assembling folds them away."""
    counts = [moment.commits for moment in moments]
    most = max(counts)
    first = next(place for place, count in enumerate(counts) if count)
    return moments[first : counts.index(most) + 1]


def report(found: Found) -> str:
    """Return the figures for people."""
    lines = [
        f"{found.documents:,} documents, rows {found.rows}: "
        f"{'conserved' if found.conserved else 'NOT CONSERVED'}",
        f"{found.wall_s:.0f} s: {found.planned_s:.0f} to list, plan and start, "
        f"{found.read_s:.0f} to read ({found.documents / found.read_s:.1f} pages/s); "
        f"object store {found.store_peak_mib:.0f} MiB at most",
        "pages committed, and the driver's own memory in MiB:",
        *(f"{pages:12,}{mib:9.1f}" for pages, mib in found.driver_mib.items()),
        f"CPU seconds{'':18}whole run   while reading   ms a page",
    ]
    for kind, seconds in sorted(found.spent.items(), key=lambda item: -item[1]):
        reading = found.read_spent.get(kind, 0.0)
        lines.append(
            f"  {kind:26}{seconds:10.1f}{reading:16.1f}{1000 * reading / found.documents:12.2f}"
        )
    lines.append(f"growth {found.growth:+.1%}: {'flat' if found.flat else 'GROWN'}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pile", type=Path, help="make the documents here, or find them here")
    asked = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="pagelake-proof-") as name:
        pile = asked.pile or Path(name) / "pile"
        if not pile.is_dir():
            make_pile(pile, asked.documents, asked.seed, {"image": 1.0})
        found = measure(Path(name), pile, asked.documents)
    print(report(found))
    sys.exit(0 if found.conserved and found.flat else 1)


if __name__ == "__main__":
    main()
