"""What the reader learns from: made documents, drawn as the pipeline would draw them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.pretrain.patches import glyph_patches, patch_characters
from pipeline.pretrain.tracing import NOWHERE, traced_page, traced_record
from pipeline.records import Image
from pipeline.synth.dense import dense_page
from pipeline.synth.document import SynthPage, make_document
from pipeline.synth.draw import Look, draw_page
from pipeline.synth.files import Kind
from pipeline.synth.layout import Glyph, Layout
from pipeline.synth.words import Split

RECEIPT_SCHEMA, TEXT_SCHEMA = "receipt.v1", "text.v1"

_SCALES, _SCALE_WEIGHTS = (1, 2, 3, 4), (0.7, 0.15, 0.1, 0.05)


@dataclass(frozen=True, slots=True)
class Geometry:
    """The canvas of a reader: `grid` (columns, rows) of square patches of `patch` pixels."""

    grid: tuple[int, int]
    patch: int

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.grid[0] * self.patch, self.grid[1] * self.patch


@dataclass(frozen=True, slots=True)
class Shot:
    """How a page becomes a tile: drawn at `scale` times the layout, and shrunk.

    Bilinearly, or if `halved` by the mean.
    """

    scale: int = 1
    halved: bool = False

    @classmethod
    def of_file(cls, kind: Kind, scale: int) -> Self:
        """Return how the pipeline gets at a page of such a file.

        `pipeline.render.images` shrinks bilinearly; pdfium too, but for powers of two, where it
        takes the mean.
        """
        if kind is Kind.IMAGE:
            return cls(scale)
        return cls(scale, halved=scale in (2, 4)) if kind is Kind.SCAN else cls()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the reader should write when asked for a schema.

    `patches[i]` is the patch, counted row by row, that character i is read from, or `NOWHERE`.
    """

    schema_id: str
    text: str
    patches: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A page as the model sees it, uint8 (height, width, 1), and what it shows.

    `characters` is int64 (patches, slots), see `pipeline.pretrain.patches`.
    """

    tile: Image
    characters: NDArray[np.int64]
    answer: Answer | None = None


def dense_example(number: int, geometry: Geometry) -> Example:
    """Return a training page full of text, without an answer."""
    page = dense_page(f"{Split.TRAIN} {number}", Split.TRAIN)
    shot = _shot(random.Random(f"drawn {number}"))
    return _labelled(page.layout, page.layout.glyphs(), page.look, shot, geometry)[0]


def answer_example(
    number: int, geometry: Geometry, ocr_share: float, split: Split = Split.TRAIN
) -> Example:
    """Return a document's page and its record, or in `ocr_share` of cases the page's text."""
    rng = random.Random(f"drawn {number}")
    page = make_document(f"{split} {number}", split).pages[0]
    schema_id = TEXT_SCHEMA if rng.random() < ocr_share else RECEIPT_SCHEMA
    return page_example(page, page.look, _shot(rng), geometry, schema_id)


def page_example(
    page: SynthPage, look: Look, shot: Shot, geometry: Geometry, schema_id: str
) -> Example:
    """Return a page printed in `look`, and what it answers."""
    glyphs = page.layout.glyphs()
    shown, places = _labelled(page.layout, glyphs, look, shot, geometry)
    if schema_id == TEXT_SCHEMA:
        traced = traced_page(page.layout)
    else:
        traced = traced_record(page.receipt, glyphs)
    cells = [int(row) * geometry.grid[0] + int(column) for row, column in places]
    patches = tuple(NOWHERE if source == NOWHERE else cells[source] for source in traced.sources)
    return replace(shown, answer=Answer(schema_id, traced.text, patches))


def _labelled(
    layout: Layout, glyphs: Sequence[Glyph], look: Look, shot: Shot, geometry: Geometry
) -> tuple[Example, NDArray[np.float64]]:
    """Return the page without an answer, and where its `glyphs` are, see `glyph_patches`."""
    places = glyph_patches(glyphs, look, geometry.grid)
    characters = patch_characters(glyphs, places, geometry.grid)
    return Example(_tile(layout, look, shot, geometry), characters), places


def _shot(rng: random.Random) -> Shot:
    scale = rng.choices(_SCALES, _SCALE_WEIGHTS)[0]
    scanned = Shot.of_file(Kind.SCAN, scale)
    return scanned if scanned.halved and rng.random() < 0.5 else Shot(scale)


def _tile(layout: Layout, look: Look, shot: Shot, geometry: Geometry) -> Image:
    image = draw_page(layout, look, shot.scale)
    if image.size != geometry.size:
        how = Pillow.Resampling.BOX if shot.halved else Pillow.Resampling.BILINEAR
        image = image.resize(geometry.size, how)
    return np.asarray(image)[:, :, np.newaxis]
