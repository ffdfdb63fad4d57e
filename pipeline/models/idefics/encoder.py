"""The processor half of IDEFICS: every page becomes one square image, on uint8.

Does what `IdeficsImageProcessor` does up to rescaling (transformers 5,
`image_processing_pil_idefics.py`); equality with the stock processor is tested bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image

from pipeline.models.base import PagePlan
from pipeline.records import Image


@dataclass(frozen=True, slots=True)
class IdeficsEncoder:
    """`edge` is the side of the square that the model reads, in pixels (224 in all published
    checkpoints), `resample` the number that Pillow gives to a filter."""

    edge: int
    resample: int

    def plan_page(self, width: float, height: float, scalable: bool) -> PagePlan:
        """Draw the page into a white square, where the stock would squash it into one.

        A picture smaller than the square is not enlarged yet: `encode` does it as the stock does.
        """
        scale = self.edge / max(width, height)
        if not scalable:
            scale = min(scale, 1.0)
        drawn = max(1, round(width * scale)), max(1, round(height * scale))
        return PagePlan(*drawn, max(drawn), max(drawn))

    def encode(self, image: Image) -> tuple[Image, ...]:
        """Return one tile, `edge` by `edge` pixels."""
        if image.shape[:2] == (self.edge, self.edge):
            return (np.ascontiguousarray(image),)
        grey = image.shape[2] == 1
        picture = PIL.Image.fromarray(image[:, :, 0] if grey else image)
        resampling = PIL.Image.Resampling(self.resample)
        resized = np.asarray(picture.resize((self.edge, self.edge), resampling))
        return (resized[:, :, np.newaxis] if grey else resized,)
