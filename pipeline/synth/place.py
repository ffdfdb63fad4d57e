"""Placing: the lines of a page -> runs at their places, in a typeface and size that fit."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.synth.layout import HEIGHT, WIDTH, Layout, Piece, Run
from pipeline.synth.lines import Align, Cell, Line, Role
from pipeline.synth.typeface import Typeface

MARGIN = 4
"""Free at every edge, in pixels: what a turned page and overhanging letters need."""

PITCH_LEAST, PITCH_MOST = 1.3, 1.8
"""From line to line, in sizes of the upper line."""

_MARGIN_MOST = 9
_LOWEST_START = 40
_LARGER = 1.2
_SINK = 1.25
"""From the top of a line to below its lowest ink, in sizes."""
_GAP = 0.6
"""Least space between cells, in ems."""
_MONO_SIZES = {10.0: 0.60, 10.5: 0.10, 11.0: 0.15, 12.0: 0.10, 13.0: 0.05}
_OTHER_SIZES = {11.0: 0.40, 12.0: 0.35, 13.0: 0.25}
_TYPEFACES = {
    Typeface.DEJAVU_SANS_MONO: 0.22,
    Typeface.DEJAVU_SANS_MONO_BOLD: 0.08,
    Typeface.LIBERATION_MONO: 0.26,
    Typeface.LIBERATION_MONO_BOLD: 0.14,
    Typeface.DEJAVU_SANS: 0.15,
    Typeface.LIBERATION_SANS: 0.15,
}


class DoesNotFitError(ValueError):
    """The lines that must be there are too many or too wide."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How a page is set; lengths in pixels."""

    typeface: Typeface
    size: float
    left: float
    width: float
    step: float  # tops are multiples of it
    larger: frozenset[Role]
    bold: frozenset[Role]

    def size_of(self, line: Line) -> float:
        """Return the size of a line, larger only where it fits so."""
        larger = round(self.size * _LARGER, 1)
        return larger if line.role in self.larger and self.fits(line, larger) else self.size

    def fits(self, line: Line, size: float) -> bool:
        """Whether the cells of the line find room side by side."""
        gap, end = _GAP * size, -math.inf
        for cell in line.cells:
            start, width = self.span(cell, size)
            if start < 0 or start < end + gap or start + width > self.width:
                return False
            end = start + width
        return True

    def span(self, cell: Cell, size: float) -> tuple[float, float]:
        """Return where the cell starts, from the left margin, and its width."""
        width = self.typeface.width(cell.text) * size
        share = {Align.LEFT: 0.0, Align.CENTRE: 0.5, Align.RIGHT: 1.0}[cell.align]
        return self.width * cell.place - share * width, width


def choose_setting(rng: random.Random) -> Setting:
    """Return how to set a page; about seven in ten are monospaced."""
    typeface = rng.choices(tuple(_TYPEFACES), tuple(_TYPEFACES.values()))[0]
    sizes = _MONO_SIZES if typeface.is_mono else _OTHER_SIZES
    left = rng.choice((float(rng.randint(MARGIN, _MARGIN_MOST)), rng.uniform(MARGIN, _MARGIN_MOST)))
    return Setting(
        typeface=typeface,
        size=rng.choices(tuple(sizes), tuple(sizes.values()))[0],
        left=left,
        width=WIDTH - left - rng.uniform(MARGIN, _MARGIN_MOST),
        step=rng.choice((1.0, 0.25)),
        larger=_roles(rng, 0.35, 0.2),
        bold=_roles(rng, 0.35, 0.35),
    )


def _roles(rng: random.Random, heading: float, total: float) -> frozenset[Role]:
    chances = ((Role.HEADING, heading), (Role.TOTAL, total))
    return frozenset(role for role, chance in chances if rng.random() < chance)


def place(rng: random.Random, setting: Setting, lines: Sequence[Line]) -> Layout:
    """Set the lines, as large as wanted or as they fit, without optional lines that do not fit.

    Raises DoesNotFitError if it cannot be done in the typeface.
    """
    sizes = _MONO_SIZES if setting.typeface.is_mono else _OTHER_SIZES
    for size in sorted((size for size in sizes if size <= setting.size), reverse=True):
        smaller = replace(setting, size=size)
        kept = _fitting(rng, smaller, lines)
        if kept:
            return Layout(_runs(rng, smaller, kept))
    raise DoesNotFitError(f"{len(lines)} lines do not fit on a page of {WIDTH} x {HEIGHT}")


def _fitting(rng: random.Random, setting: Setting, lines: Sequence[Line]) -> list[Line]:
    """Return the lines that fit, or none if one that must be there does not."""
    kept = [line for line in lines if setting.fits(line, setting.size)]
    if len(kept) < len(lines) and not all(line.optional for line in lines if line not in kept):
        return []
    spare = [line for line in kept if line.optional]
    rng.shuffle(spare)
    while _height(setting, kept, PITCH_LEAST) > HEIGHT - 2 * MARGIN:
        if not spare:
            return []
        out = spare.pop()
        kept = [line for line in kept if line is not out]
    return kept


def _pitch(setting: Setting, size: float, ratio: float) -> float:
    return math.ceil(ratio * size / setting.step) * setting.step


def _height(setting: Setting, lines: Sequence[Line], ratio: float) -> float:
    *above, last = (setting.size_of(line) for line in lines)
    return sum(_pitch(setting, size, ratio) for size in above) + _SINK * last


def _runs(rng: random.Random, setting: Setting, lines: Sequence[Line]) -> tuple[Run, ...]:
    ratios = [rng.uniform(PITCH_LEAST, PITCH_MOST) for _ in range(3)]
    room = HEIGHT - 2 * MARGIN
    fitting = (ratio for ratio in ratios if _height(setting, lines, ratio) <= room)
    ratio = next(fitting, PITCH_LEAST)
    slack = room - _height(setting, lines, ratio)
    start = rng.uniform(0, min(slack, _LOWEST_START))
    n_blocks = 1 + sum(line.opens_block for line in lines)
    gap = rng.uniform(0, min(10, (slack - start) / n_blocks)) if rng.random() < 0.4 else 0.0
    top, runs = MARGIN + start, list[Run]()
    for line in lines:
        top += gap if line.opens_block else 0
        size = setting.size_of(line)
        snapped = math.floor(top / setting.step) * setting.step
        runs.extend(_set(setting, cell, line, snapped, size) for cell in line.cells)
        top += _pitch(setting, size, ratio)
    return tuple(runs)


def _set(setting: Setting, cell: Cell, line: Line, top: float, size: float) -> Run:
    start, width = setting.span(cell, size)
    typeface = setting.typeface.bold if line.role in setting.bold else setting.typeface
    pieces = cell.pieces
    if line.rule:
        pieces = (Piece(cell.text * int(setting.width * line.rule / width)),)
    return Run(setting.left + start, top, pieces, size, typeface)
