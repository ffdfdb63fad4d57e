"""What every patch of a page shows: the labels of the eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.synth.draw import Look
from pipeline.synth.layout import HEIGHT, WIDTH, Glyph

SLOTS = 4
"""Places for a character in a patch, side by side: thin letters are about a slot wide."""

CHARACTERS = "".join(map(chr, range(33, 127))) + "€£"
CLASSES = 1 + len(CHARACTERS)
"""Class 0 is blank."""

_CLASS = {character: 1 + i for i, character in enumerate(CHARACTERS)}


def glyph_patches(
    glyphs: Sequence[Glyph], look: Look, grid: tuple[int, int]
) -> NDArray[np.float64]:
    """Return float (n, 2): row and column, in patches, of every glyph's centre as it is printed.

    The page fills the `grid` (columns, rows); centres outside it are moved to its edge.
    """
    columns, rows = grid
    places = np.array([look.place(glyph.x, glyph.y) for glyph in glyphs]).reshape(-1, 2)
    cells = places[:, ::-1] * (rows / HEIGHT, columns / WIDTH)
    return np.clip(cells, 0, (rows - 1e-6, columns - 1e-6))


def patch_characters(
    glyphs: Sequence[Glyph], places: NDArray[np.float64], grid: tuple[int, int]
) -> NDArray[np.int64]:
    """Return int64 (patches, SLOTS): the class of the character in each slot of each patch."""
    columns, rows = grid
    shown = np.zeros((rows, columns * SLOTS), np.int64)
    for glyph, (row, column) in zip(glyphs, places, strict=True):
        if glyph.char != " ":
            shown[int(row), int(column * SLOTS)] = _CLASS[glyph.char]
    return shown.reshape(rows * columns, SLOTS)
