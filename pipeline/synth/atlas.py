"""The glyph atlas: each character's ink, drawn once, kept, and set wherever it is wanted."""

from __future__ import annotations

import math
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.synth.typeface import Typeface, font_of

_FINE_EM = 80
"""About how many pixels an em has before it is reduced, if it is reduced at all."""


class Edges(StrEnum):
    """How a character's outline meets the pixels."""

    HINTED = "hinted"  # bent to fit whole pixels, as on a screen
    SMOOTH = "smooth"  # as designed, from a third of a pixel across on: how pdfium draws
    FREE = "free"  # as designed, from any quarter of a pixel on: softer, as in a reduced scan

    @property
    def phases(self) -> tuple[int, int]:
        """How many places a character can have within a pixel, across and down."""
        return _PHASES[self]


_PHASES = {Edges.HINTED: (1, 1), Edges.SMOOTH: (3, 1), Edges.FREE: (4, 4)}


class Ink(NamedTuple):
    """A character's coverage, uint8 (height, width) of 0-255, and its corner from the origin."""

    coverage: NDArray[np.uint8]
    left: int
    top: int
    right: int
    bottom: int


class Atlas(dict[tuple[str, int, int], Ink]):
    """The ink of characters of one typeface at `size` pixels an em, drawn when first asked for.

    A key is the character and how far its origin, on the baseline, lies right of and below the
    corner of a pixel, each in parts of one over the edges' `phases`.
    """

    def __init__(self, typeface: Typeface, size: float, edges: Edges) -> None:
        super().__init__()
        wanted = 1 if edges is Edges.HINTED else min(8, max(2, round(_FINE_EM / size)))
        # Thirds of a pixel must be whole parts of it.
        self._fine = 3 * math.ceil(wanted / 3) if edges is Edges.SMOOTH else wanted
        self._edges = edges
        self._font = font_of(typeface, size * self._fine)

    def __missing__(self, key: tuple[str, int, int]) -> Ink:
        character, *phase = key
        across, down = (
            part * self._fine // phases
            for part, phases in zip(phase, self._edges.phases, strict=True)
        )
        spread = self._fine // 3 if self._edges is Edges.SMOOTH else 0
        self[key] = ink = _drawn(self._font, character, (across, down), self._fine, spread)
        return ink


@lru_cache(maxsize=512)
def atlas_of(typeface: Typeface, size: float, edges: Edges) -> Atlas:
    """Return the atlas, the same one each time while it is in use."""
    return Atlas(typeface, size, edges)


def _drawn(
    font: ImageFont.FreeTypeFont,
    character: str,
    shift: tuple[int, int],
    factor: int,
    spread: int,
) -> Ink:
    """Draw a character `factor` times too large, its origin at `shift`, and reduce it.

    With `spread` it is the mean of three, the others so far left and right of it: pdfium draws the
    three stripes of a pixel each for itself, as FreeType does for LCDs, and greys them.
    """
    reach = math.ceil(1.5 * font.size / factor)
    middle = reach * factor
    square = Image.new("L", (2 * middle, 2 * middle))
    origin = (middle + shift[0], middle + shift[1])
    ImageDraw.Draw(square).text(origin, character, fill=255, font=font, anchor="ls")
    if spread:
        drawn = np.asarray(square, np.uint16)
        left_and_right = np.roll(drawn, -spread, axis=1) + np.roll(drawn, spread, axis=1)
        square = Image.fromarray(((drawn + left_and_right + 1) // 3).astype(np.uint8))
    reduced = square.reduce(factor)
    left, top, right, bottom = reduced.getbbox() or (reach, reach, reach, reach)
    coverage = np.asarray(reduced)[top:bottom, left:right].copy()
    return Ink(coverage, left - reach, top - reach, right - reach, bottom - reach)
