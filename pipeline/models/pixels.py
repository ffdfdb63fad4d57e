"""From uint8 tiles to the numbers that the vision tower reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.records import Image


def pixel_table(images: Any) -> NDArray[np.float32]:
    """Return float32 (3, 256): what a stock image processor makes of each byte, by channel."""
    levels = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :], 3, axis=0)
    rescaled = images.rescale(levels, images.rescale_factor)
    normal = images.normalize(rescaled, images.image_mean, images.image_std)
    return np.ascontiguousarray(normal[:, 0, :], dtype=np.float32)


def look_up(tables: NDArray[np.float32], tiles: Sequence[Image]) -> NDArray[np.float32]:
    """Return float32 (n, 3, height, width) of tiles (height, width, 1 or 3) of one size."""
    height, width, _ = tiles[0].shape
    pixels = np.empty((len(tiles), 3, height, width), np.float32)
    for target, tile in zip(pixels, tiles, strict=True):
        _fill(target, tile, tables)
    return pixels


def _fill(target: NDArray[np.float32], tile: Image, tables: NDArray[np.float32]) -> None:
    # Four times faster than indexing by torch.
    for channel, table in enumerate(tables):
        if tile.shape[2] == 1 and channel and np.array_equal(table, tables[0]):
            target[channel] = target[0]
        else:
            source = tile[:, :, channel if tile.shape[2] == 3 else 0]
            np.take(table, source, out=target[channel], mode="clip")
