"""What befalls a printed page: arrays in, arrays of the same shape out.

Coverage is float32 of 0-1, grey float32 of 0-255.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float32]

_NOISE = 1 << 20


def turn(coverage: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn about the middle, counterclockwise as seen."""
    turned = Image.fromarray(coverage).rotate(degrees, Image.Resampling.BICUBIC)
    return np.asarray(turned)


def fade(coverage: Plane, strength: float, seed: int) -> Plane:
    """Take up to `strength` of the ink away, in bands or spots that shade into one another."""
    stream = np.random.RandomState(seed)
    rows, columns = ((1, 6), (7, 1), (4, 3))[stream.randint(3)]
    coarse = stream.uniform(0, 255, (rows, columns)).astype(np.uint8)
    height, width = coverage.shape
    field = Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR)
    return coverage * (1 - strength / 255 * np.asarray(field, np.float32))


def blur(grey: Plane, sigma: float) -> Plane:
    """Blur with a Gaussian of `sigma` pixels, cut off at three sigma."""
    reach = max(1, round(3 * sigma))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2).astype(np.float32)
    weights /= weights.sum()
    return _slid(_slid(grey, weights).T, weights).T


def _slid(plane: Plane, weights: Plane) -> Plane:
    """Return the correlation down the columns, the edges repeated."""
    reach, height = len(weights) // 2, len(plane)
    padded = np.pad(plane, ((reach, reach), (0, 0)), mode="edge")
    total = weights[0] * padded[:height]
    for shift, weight in enumerate(weights[1:], start=1):
        total += weight * padded[shift : shift + height]
    return np.ascontiguousarray(total)


def add_noise(grey: Plane, deviation: float, seed: int) -> Plane:
    """Add normal noise of a standard deviation in grey levels."""
    start = seed % (_NOISE - grey.size)
    return grey + deviation * _noise()[start : start + grey.size].reshape(grey.shape)


@cache
def _noise() -> Plane:
    """Return standard normal noise, drawn once: each page has a stretch of it."""
    # The stream of RandomState is frozen for good; that of default_rng may change.
    return np.random.RandomState(0).standard_normal(_NOISE).astype(np.float32)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Write the image as JPEG and read it back."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")
