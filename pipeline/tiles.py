"""Handling tiles without unpacking them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.records import Image, Tiles

Shapes = Sequence[Sequence[tuple[int, ...]]]
"""(height, width, channels) of every tile, image by image."""


def tile_shapes(tiles: Tiles) -> Shapes:
    """Return the shapes of tiles; packed ones know them, and stay packed."""
    known: Shapes | None = getattr(tiles, "shapes", None)
    if known is not None:
        return known
    return [[tile.shape for tile in page] for page in tiles]


class LastTiles(Sequence[Sequence[Image]]):
    """Of every image its last tile: where images are split, the whole of it."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self.shapes = [page[-1:] for page in tile_shapes(tiles)]

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[Sequence[Image]]:
        return ([_alone(tile) for tile in page[-1:]] for page in self._tiles)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


def _alone(tile: Image) -> Image:
    """Copy a tile that is part of a larger buffer, so that the rest of that is let go."""
    whole = tile.base
    return tile.copy() if isinstance(whole, np.ndarray) and whole.nbytes > tile.nbytes else tile


class Together(Sequence[Sequence[Image]]):
    """Tiles behind other tiles, as one."""

    def __init__(self, *parts: Tiles) -> None:
        self._parts = parts
        self.shapes = [page for part in parts for page in tile_shapes(part)]

    def __len__(self) -> int:
        return len(self.shapes)

    def __iter__(self) -> Iterator[Sequence[Image]]:
        for part in self._parts:
            yield from part

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]
