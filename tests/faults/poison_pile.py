"""Hostile and harmful documents among good ones: how each must end in the tables of a whole run.

The good ones cost nothing but themselves; `poison` says what files can do to the renderer, and
pages that do harm to the fake model stand beside them here.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import poison_pdf
from PIL import Image
from poison import DRAWN, Ending, Poison

from pipeline.lake.listing import LocalTree
from pipeline.records import FailureKind, StageName

Row = Mapping[str, Any]

HARMS: Mapping[str, tuple[str, FailureKind]] = {
    "dies_on": ("ff0000", FailureKind.MODEL_CRASH),
    "hangs_on": ("00ff00", FailureKind.MODEL_TIMEOUT),
    "fails_on": ("0000ff", FailureKind.MODEL_ERROR),
    "runs_out_on": ("ffff00", FailureKind.OUT_OF_MEMORY),
}
"""What the fake model does at pages of a colour, and how those must end."""

_ENCRYPTED = frozenset({FailureKind.ENCRYPTED})


@dataclass(frozen=True)
class Expected:
    """How a document must end: its plan, and if `document` is `DRAWN`, each of its pages.

    `content` is the sha256 of its bytes in hex, None for what cannot be read. `stage` says where it
    must be noticed, if that is known.
    """

    name: str
    document: Ending = DRAWN
    pages: tuple[Ending, ...] = ()
    content: str | None = None
    stage: StageName | None = None

    @property
    def state(self) -> str:
        """The state of the document."""
        ends = set(map(bool, self.pages)) if self.document == DRAWN else {True}
        return "partial" if len(ends) > 1 else "failed" if True in ends else "ok"

    @property
    def rows(self) -> Iterator[tuple[str | None, int]]:
        """The content and number of each page that must have a row."""
        return ((self.content, number) for number in range(1, len(self.pages) + 1))

    def text(self) -> str:
        """Return this for people."""
        if self.document != DRAWN:
            return _either(self.document)
        return _shortened([_either(ending) for ending in self.pages])


@dataclass(frozen=True)
class Finding:
    """What was expected of a document, and what its rows say."""

    expected: Expected
    found: str
    right: bool


def uri_of(path: Path) -> str:
    """Return what a file is called in the tables."""
    return LocalTree().uri(str(path))


def expect_good(path: Path, n_pages: int) -> Expected:
    """Return what must become of a good document."""
    return Expected(path.name, DRAWN, (DRAWN,) * n_pages, _sha256(path))


def expect_poison(poison: Poison, path: Path, password: str | None) -> Expected:
    """Return what must become of a poison in a job that has this password, and poppler or not."""
    document, pages = poison.expected(shutil.which("pdftoppm") is not None)
    locked = document == _ENCRYPTED or poison.password == poison_pdf.PASSWORD
    if locked and password == poison_pdf.PASSWORD:
        document, pages = DRAWN, (DRAWN,)
    elif locked:
        document, pages = _ENCRYPTED, ()
    content = _sha256(path) if poison.place is None else None
    return Expected(poison.name, document, pages, content)


def write_harm(folder: Path, harm: str) -> Path:
    """Write an image that does harm to the fake model."""
    path = folder / f"{harm.replace('_', '-')}.png"
    Image.new("RGB", (40, 56), "#" + HARMS[harm][0]).save(path)
    return path


def expect_harm(path: Path, harm: str) -> Expected:
    """Return what must become of an image that does harm."""
    return Expected(path.name, DRAWN, (frozenset({HARMS[harm][1]}),), _sha256(path))


def judge(
    expected: Mapping[str, Expected], documents: Iterable[Row], pages: Iterable[Row]
) -> list[Finding]:
    """Compare each document's rows with what is expected of it, by uri; see also `accounts`."""
    rows = {row["uri"]: row for row in documents}
    by_content: dict[str, list[Row]] = {}
    for page in sorted(pages, key=lambda row: row["page_numbers"]):
        by_content.setdefault(page["document_id"], []).append(page)
    found = []
    for uri, wanted in expected.items():
        row = rows.get(uri)
        if row is None:
            found.append(Finding(wanted, "no row", False))
        else:
            found.append(_judged(wanted, row, by_content.get(row["document_id"], [])))
    return found


def _judged(wanted: Expected, row: Row, pages: list[Row]) -> Finding:
    kinds = [row["failure_kind"]] if wanted.document else [page["failure_kind"] for page in pages]
    endings = [wanted.document] if wanted.document else list(wanted.pages)
    right = (
        row["state"] == wanted.state
        and len(kinds) == len(endings)
        and all(map(_is, kinds, endings))
        and wanted.stage in (None, row["failure_stage"])
        and row["pages_ok"] == wanted.pages.count(DRAWN)
        and row["document_id"] in (wanted.content, None if wanted.document else wanted.content)
    )
    found = _shortened([_either({FailureKind(kind)} if kind else DRAWN) for kind in kinds])
    if row["failure_stage"] == "discover" and not wanted.document:
        found = f"{row['failure_kind']} in discover"
    return Finding(wanted, found, right)


def accounts(
    expected: Mapping[str, Expected], documents: Iterable[Row], pages: Iterable[Row]
) -> list[str]:
    """Return what is missing, doubled or made up, against what lay on the disk (law 1)."""
    listed = Counter(expected.keys())
    planned = Counter({row for one in expected.values() for row in one.rows})
    found = Counter(row["uri"] for row in documents)
    read = Counter((row["document_id"], number) for row in pages for number in row["page_numbers"])
    return [
        f"{wrong}: {thing!a} x {count}"
        for wrong, counts in (
            ("no row of document", listed - found),
            ("one row too many of document", found - listed),
            ("no row of page", planned - read),
            ("one row too many of page", read - planned),
        )
        for thing, count in counts.items()
    ]


def _is(kind: str | None, ending: Ending) -> bool:
    return kind is None if ending == DRAWN else kind in ending


def _either(ending: Iterable[FailureKind]) -> str:
    return " or ".join(sorted(kind.removeprefix("render_") for kind in ending)) or "ok"


def _shortened(words: list[str]) -> str:
    """Write "ok, ok, ok" as "3 x ok"."""
    same = len(set(words)) == 1 and len(words) > 1
    return f"{len(words)} x {words[0]}" if same else ", ".join(words)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
