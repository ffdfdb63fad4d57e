"""A pile of good documents with poison and harm among them, and what must become of each."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path

from piles import PDF_PAGES, make_pile

sys.path.append(str(Path(__file__).parents[2] / "tests" / "faults"))
import poison_pdf
import poison_pile
from poison import POISONS, Poison, change, vanish
from poison_pile import HARMS, Expected, uri_of

from pipeline.records import FailureKind, StageName

ITEM_S, ATTEMPTS, RESTART_S = 5, 2, 5
"""The job's limits, and the seconds that a new process of the model may take."""

SHARES = {"image": 70, "pdf": 20, "copy": 10}
FOLDERS = 8


@dataclass(frozen=True)
class Meanwhile:
    """What happens to a file once a run has written a paper, and where that must be noticed."""

    paper: str
    does: Callable[[Path], None]
    kind: FailureKind
    stage: StageName


MEANWHILE: Mapping[str, Meanwhile] = {
    f"{does.__name__}-{when}": Meanwhile(paper, does, kind, stage)
    for when, paper, stage in (
        ("listed", "documents", StageName.DISCOVER),
        ("planned", "shards", StageName.RASTERIZE),
    )
    for does, kind in (
        (vanish, FailureKind.SOURCE_MISSING),
        (change, FailureKind.SOURCE_CHANGED),
    )
}


class Pile:
    """The files, and what is expected of each by its uri.

    `good` has the good ones alone and `mixed` all others with them; `manifest` names last what is
    no file or will change, so that it is planned and read last.
    """

    def __init__(self, folder: Path, n_good: int, seed: int) -> None:
        self.good, self.mixed = folder / "good", folder / "mixed"
        self._late = folder / "late"
        self.manifest = folder / "late.csv"
        make_pile(self.good, n_good, seed, SHARES)
        places = [self.mixed / str(number) for number in range(FOLDERS)]
        for place in (*places, self._late):
            place.mkdir(parents=True)
        self._good = dict(self._mix_in_good(cycle(places)))
        self._poisons = list(self._mix_in_poison(cycle(places)))
        self._harms = dict(self._mix_in_harm(cycle(places)))
        self.changing = {name: self._late / f"{name}.pdf" for name in MEANWHILE}
        self._write_late()

    def _mix_in_good(self, places: Iterator[Path]) -> Iterator[tuple[str, Expected]]:
        for path in sorted(self.good.iterdir()):
            placed = next(places) / path.name
            placed.hardlink_to(path)
            n_pages = PDF_PAGES if path.suffix == ".pdf" else 1
            yield uri_of(placed), poison_pile.expect_good(placed, n_pages)

    def _mix_in_poison(self, places: Iterator[Path]) -> Iterator[tuple[Poison, Path]]:
        for poison in POISONS:
            yield poison, poison.write(next(places) if poison.place is None else self._late)

    def _mix_in_harm(self, places: Iterator[Path]) -> Iterator[tuple[str, Expected]]:
        for harm in HARMS:
            path = poison_pile.write_harm(next(places), harm)
            yield uri_of(path), poison_pile.expect_harm(path, harm)

    def _write_late(self) -> None:
        for number, path in enumerate(self.changing.values()):
            path.write_bytes(poison_pdf.good().replace(b"(Hello)", b"(Late%d)" % number))
        with self.manifest.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["uri", "note"])
            late = [path for poison, path in self._poisons if poison.place is not None]
            rows.writerows([path, "late"] for path in (*late, *self.changing.values()))

    def expected(self, password: str, changed: Mapping[str, Expected]) -> dict[str, Expected]:
        """Return what must become of every document in a job with this password."""
        poisons = {
            uri_of(path): poison_pile.expect_poison(poison, path, password)
            for poison, path in self._poisons
        }
        return {**self._good, **poisons, **self._harms, **changed}

    def to_change(self) -> dict[str, Expected]:
        """Return what must become of the files that vanish or change while they are read."""
        found = {}
        for name, what in MEANWHILE.items():
            whole = poison_pile.expect_good(self.changing[name], 1)
            ending = frozenset({what.kind})
            found[uri_of(self.changing[name])] = (
                Expected(whole.name, ending, stage=what.stage)
                if what.stage is StageName.DISCOVER
                else replace(whole, pages=(ending,), stage=what.stage)
            )
        return found

    def changed(self) -> dict[str, Expected]:
        """Return what must become of them afterwards."""
        missing = frozenset({FailureKind.SOURCE_MISSING})
        return {
            uri_of(path): poison_pile.expect_good(path, 1)
            if path.exists()
            else Expected(path.name, missing)
            for path in self.changing.values()
        }

    def bound_s(self) -> float:
        """Return the seconds that all poison and harm may cost together."""
        poisons = sum(poison.bound_s for poison in POISONS)
        harms = len(HARMS) * ATTEMPTS * RESTART_S + ATTEMPTS * ITEM_S  # one of them hangs
        return poisons + harms

    def files(self) -> dict[str, tuple[int, int]]:
        """Return all there is, with size and time, but for what changes on purpose."""
        found = {}
        for place in (self.good, self.mixed, self._late):
            for path in place.rglob("*"):
                if path not in self.changing.values():
                    status = path.lstat()
                    found[str(path)] = status.st_size, status.st_mtime_ns
        return found

    def meanwhile(self, output: Path) -> Iterator[None]:
        """Change files once the papers of a run say that it is the time; one look a step."""
        waiting = dict(MEANWHILE)
        while waiting:
            for name, what in list(waiting.items()):
                if any(output.glob(f"_pagelake/runs/*/{what.paper}.parquet")):
                    what.does(self.changing[name])
                    del waiting[name]
            yield
