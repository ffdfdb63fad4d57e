"""The processor half of Idefics2: page sizes, image splitting and resizing, on uint8.

Does what `Idefics2ImageProcessor` does up to rescaling (transformers 5,
`image_processing_pil_idefics2.py`); rescale and normalise happen in the model process, on a quarter
of the bytes (an eighth for grey pages). Equality with the stock processor is tested bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image

from pipeline.models.base import PagePlan
from pipeline.records import Image


@dataclass(frozen=True, slots=True)
class Idefics2Encoder:
    """`longest_edge` and `shortest_edge` bound a tile's sides, in pixels (980 and 378 at 8B).

    With `splitting`, a page becomes its four quadrants and the whole page; each is shrunk, never
    enlarged, to the longest edge. `canvas` is a fixed (width, height) for checkpoints that were
    trained on one.
    """

    longest_edge: int
    shortest_edge: int
    splitting: bool
    canvas: tuple[int, int] | None = None

    def plan_page(self, width: float, height: float, scalable: bool) -> PagePlan:
        """Draw at the size the tiles look at, padded so that no tile's aspect is distorted.

        The stock processor stretches sides under `shortest_edge`; white padding up to it (twice
        it, where the page is halved) leaves nothing to stretch.
        """
        parts = 2 if self.splitting else 1
        if self.canvas is not None:
            scale = min(self.canvas[0] / width, self.canvas[1] / height)
        else:
            scale = self.longest_edge * parts / max(width, height)
        if not scalable:
            scale = min(scale, 1.0)
        drawn_width = max(1, round(width * scale))
        drawn_height = max(1, round(height * scale))
        if self.canvas is not None:
            return PagePlan(drawn_width, drawn_height, *self.canvas)
        floor = self.shortest_edge * parts
        return PagePlan(
            drawn_width, drawn_height, max(drawn_width, floor), max(drawn_height, floor)
        )

    def encode(self, image: Image) -> tuple[Image, ...]:
        """Return one tile, or with splitting five: TL, TR, BL, BR, whole."""
        if not self.splitting:
            return (self._resize(image),)
        height, width = image.shape[0] // 2, image.shape[1] // 2
        crops = (
            image[:height, :width],
            image[:height, width:],
            image[height:, :width],
            image[height:, width:],
            image,
        )
        return tuple(self._resize(crop) for crop in crops)

    def _resize(self, image: Image) -> Image:
        height, width = image.shape[:2]
        size = self.tile_size(width, height)
        if size == (width, height):
            return np.ascontiguousarray(image)
        grey = image.shape[2] == 1
        picture = PIL.Image.fromarray(image[:, :, 0] if grey else image)
        resized = np.asarray(picture.resize(size, PIL.Image.Resampling.BILINEAR))
        return resized[:, :, np.newaxis] if grey else resized

    def tile_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) after the stock `get_resize_output_image_size`, its rounding included."""
        aspect = width / height
        if width >= height and width > self.longest_edge:
            width = self.longest_edge
            height = int(width / aspect)
        elif height > width and height > self.longest_edge:
            height = self.longest_edge
            width = int(height * aspect)
        return max(width, self.shortest_edge), max(height, self.shortest_edge)
