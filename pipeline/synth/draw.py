"""Drawing: a layout -> a grey page image."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from pipeline.synth.layout import FONT_SIZE, HEIGHT, WIDTH, Layout
from pipeline.synth.typeface import Typeface


@dataclass(frozen=True, slots=True)
class Look:
    """How a page is printed: grey levels 0-255, `noise` the standard deviation added to them.

    `supersample` is how many times finer than the image the text is drawn before averaging:
    1 gives hinted text, 2 softer text at half-pixel positions.
    """

    background: int
    ink: int
    supersample: int
    noise: float
    noise_seed: int


def choose_look(rng: random.Random) -> Look:
    """Return a look of the range that the bundled model reads."""
    noise = rng.uniform(0, 6)
    return Look(
        background=rng.randint(235, 255),
        ink=rng.randint(0, 70),
        supersample=rng.choice((1, 2)),
        noise=noise if noise > 1 else 0.0,
        noise_seed=rng.getrandbits(32),
    )


def draw_page(layout: Layout, look: Look, scale: int = 1) -> Image.Image:
    """Draw the page, `scale` times the layout's size, as a grey (mode L) image."""
    coverage = _coverage(layout, scale, look.supersample)
    pixels = look.background - (look.background - look.ink) / 255 * np.asarray(coverage, np.float32)
    if look.noise:
        # The stream of RandomState is frozen for good; that of default_rng may change.
        noise = np.random.RandomState(look.noise_seed).normal(0, look.noise, pixels.shape)
        pixels = pixels + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _coverage(layout: Layout, scale: int, supersample: int) -> Image.Image:
    """Return how much of each pixel is inked, 0-255. Bold is the text struck twice."""
    fine = scale * supersample
    first = Image.new("L", (WIDTH * fine, HEIGHT * fine))
    second = first.copy()
    font = _font(layout.typeface, FONT_SIZE * fine)
    for run in layout.runs:
        x, y = int(run.x * fine), int(run.top * fine)
        ImageDraw.Draw(first).text((x, y), run.text, fill=255, font=font)
        if run.bold:
            ImageDraw.Draw(second).text((x + scale, y), run.text, fill=255, font=font)
    return ImageChops.lighter(first, second).reduce(supersample)


@lru_cache
def _font(typeface: Typeface, size: int) -> ImageFont.FreeTypeFont:
    # Basic layout needs no optional library, so every build of Pillow draws the same.
    return ImageFont.truetype(typeface.path, size, layout_engine=ImageFont.Layout.BASIC)
