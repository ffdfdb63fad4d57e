"""Layout: where each stretch of text stands on a page. Arithmetic only, no pixels.

Every run keeps the pieces it was made of, so that each printed character can be traced to the
field it states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from pipeline.synth.typeface import Typeface, advances

WIDTH, HEIGHT = 168, 224
"""The page: pixels of the bundled model's canvas, or points of a PDF page."""

_MIDDLE = 0.35
"""Height of the middle of a character above the baseline, in ems: half a capital."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text; `field` is the path of the record's value it states, empty if none.

    A date is stated in parts: `date.year`, `date.month`, `date.day`.
    """

    text: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """Text on one line, from `x`, `top` (of the font's ascent), in pixels from the top left."""

    x: float
    top: float
    pieces: tuple[Piece, ...]
    size: float
    typeface: Typeface

    @property
    def text(self) -> str:
        """The run as printed."""
        return "".join(piece.text for piece in self.pieces)

    @property
    def baseline(self) -> float:
        """Where the characters stand: a whole pixel below `top`, as hinted fonts have it."""
        return self.top + math.ceil(self.typeface.ascent * self.size)

    @property
    def width(self) -> float:
        """From `x` to where a next character would start."""
        return self.typeface.width(self.text) * self.size

    def origins(self) -> Iterator[tuple[str, float, float]]:
        """Yield each character with the x where it starts and its width."""
        widths, x, size = advances(self.typeface), self.x, self.size
        for character in self.text:
            width = widths[character] * size
            yield character, x, width
            x += width


class Glyph(NamedTuple):
    """One printed character; `x`, `y` is its centre, before the look turns the page.

    `offset` counts characters from the start of the piece, `line` lines of text from the top.
    """

    char: str
    x: float
    y: float
    field: str
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class Layout:
    """One page of `WIDTH` x `HEIGHT`; runs of one line have one `top`."""

    runs: tuple[Run, ...]

    def lines(self) -> tuple[tuple[Run, ...], ...]:
        """Return the runs by line, top to bottom, each from left to right."""
        in_order = sorted(self.runs, key=lambda run: (run.top, run.x))
        return tuple(tuple(line) for _, line in groupby(in_order, key=lambda run: run.top))

    @property
    def text(self) -> str:
        """The page as read: a line of the string a line, a space between its runs."""
        return "\n".join(" ".join(run.text for run in line) for line in self.lines())

    def glyphs(self) -> tuple[Glyph, ...]:
        """Return the characters of the runs in the order of `text`, spaces within runs too."""
        glyphs = []
        for number, line in enumerate(self.lines()):
            for run in line:
                y = run.baseline - _MIDDLE * run.size
                origins = run.origins()
                for piece in run.pieces:
                    for offset in range(len(piece.text)):
                        char, x, width = next(origins)
                        glyphs.append(Glyph(char, x + width / 2, y, piece.field, offset, number))
        return tuple(glyphs)
