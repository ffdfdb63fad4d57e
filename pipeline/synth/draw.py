"""Drawing: a layout -> a grey page image."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.synth import effects
from pipeline.synth.atlas import Edges, atlas_of
from pipeline.synth.layout import HEIGHT, WIDTH, Layout, Run

MOST_DEGREES = 1.2
_LEAST_CONTRAST = 95
_PAD = 32


@dataclass(frozen=True, slots=True)
class Look:
    """How a page is printed and what befalls it: grey levels 0-255, lengths in layout pixels.

    The page is turned by `degrees` (counterclockwise), up to `fading` of its ink taken away (0-1),
    blurred by a Gaussian of `blur`, given noise of the standard deviation `noise` and
    stored as JPEG of quality `jpeg`; 0 each time for not at all. `seed` gives noise and fading.
    """

    background: int = 255
    ink: int = 0
    edges: Edges = Edges.HINTED
    degrees: float = 0.0
    fading: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg: int = 0
    seed: int = 0

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where the look brings the point `x`, `y` of a layout: turned about the middle."""
        angle = math.radians(self.degrees)
        right, down = x - WIDTH / 2, y - HEIGHT / 2
        return (
            WIDTH / 2 + right * math.cos(angle) + down * math.sin(angle),
            HEIGHT / 2 - right * math.sin(angle) + down * math.cos(angle),
        )


class Printed(Protocol):
    """A page of any kind of document: where its text stands, and its look."""

    @property
    def layout(self) -> Layout:
        """Its text."""

    @property
    def look(self) -> Look:
        """How it is printed."""


def choose_look(rng: random.Random) -> Look:
    """Return a look; about a third of them are clean, and all leave the text legible."""
    edges = rng.choice((Edges.HINTED, Edges.SMOOTH, Edges.FREE))
    seed = rng.getrandbits(32)
    if rng.random() < 0.35:
        white = rng.random() < 0.7
        ink = rng.choice((0, rng.randint(0, 70)))
        return Look(255 if white else rng.randint(240, 255), ink, edges, seed=seed)
    background, ink = rng.randint(225, 255), rng.randint(0, 90)
    turned, faded, blurred, packed = (rng.random() < p for p in (0.31, 0.31, 0.31, 0.38))
    noise = rng.uniform(0, 6)
    most_blur = 0.4 if turned or faded or ink > 60 else 0.55
    return Look(
        background,
        ink,
        Edges.FREE if turned else edges,
        degrees=round(rng.uniform(-MOST_DEGREES, MOST_DEGREES), 3) if turned else 0.0,
        fading=_fading(rng, background - ink) if faded else 0.0,
        blur=round(rng.uniform(0.2, most_blur), 3) if blurred else 0.0,
        noise=noise if noise > 1 else 0.0,
        jpeg=rng.randint(45, 90) if packed else 0,
        seed=seed,
    )


def _fading(rng: random.Random, contrast: int) -> float:
    most = min(0.55, 1 - _LEAST_CONTRAST / contrast)
    return round(rng.uniform(0.15, max(0.2, most)), 3)


def draw_page(layout: Layout, look: Look, scale: int = 1) -> Image.Image:
    """Draw the page, `scale` times the layout's size, as a grey (mode L) image."""
    inked = _inked(layout, look.edges, scale)
    if look.degrees:
        inked = effects.turn(inked, look.degrees)
    coverage: effects.Plane = np.divide(inked, 255, dtype=np.float32)
    if look.fading:
        coverage = effects.fade(coverage, look.fading, look.seed)
    if look.blur:
        coverage = effects.blur(coverage, look.blur * scale)
    grey = look.background - (look.background - look.ink) * coverage
    if look.noise:
        grey = effects.add_noise(grey, look.noise, look.seed)
    page = Image.fromarray(np.clip(grey + 0.5, 0, 255).astype(np.uint8))
    return effects.jpeg(page, look.jpeg) if look.jpeg else page


def _inked(layout: Layout, edges: Edges, scale: int) -> NDArray[np.uint8]:
    """Return how much of each pixel is inked, 0-255."""
    pad = _PAD * scale
    canvas = np.zeros((HEIGHT * scale + 2 * pad, WIDTH * scale + 2 * pad), np.uint8)
    for run in layout.runs:
        _set(canvas, run, edges, scale)
    return canvas[pad:-pad, pad:-pad]


def _set(canvas: NDArray[np.uint8], run: Run, edges: Edges, scale: int) -> None:
    atlas = atlas_of(run.typeface, run.size * scale, edges)
    pad = _PAD * scale
    steps_across, steps_down = edges.phases
    y, down = divmod(math.floor(run.baseline * scale * steps_down + 0.5), steps_down)
    y += pad
    rounding = 0.0 if edges is Edges.SMOOTH else 0.5  # pdfium cuts off, down to thirds
    for character, start, _ in run.origins():
        if character == " ":
            continue
        x, across = divmod(math.floor(start * scale * steps_across + rounding), steps_across)
        x += pad
        coverage, left, top, right, bottom = atlas[character, across, down]
        room = canvas[y + top : y + bottom, x + left : x + right]
        np.maximum(room, coverage, out=room)
