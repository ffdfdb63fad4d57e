"""What the reader learns from: made documents, drawn as the pipeline would draw them."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from pipeline.finetune.patches import glyph_patches, patch_characters
from pipeline.finetune.tracing import NOWHERE, TracedText, traced_page, traced_record
from pipeline.records import Image
from pipeline.synth.dense import dense_page
from pipeline.synth.document import make_document
from pipeline.synth.draw import Look, draw_page
from pipeline.synth.layout import Layout
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

    `characters` is int64 (patches, slots), see `pipeline.finetune.patches`.
    """

    tile: Image
    characters: NDArray[np.int64]
    answer: Answer | None = None


def dense_example(number: int, geometry: Geometry, split: Split = Split.TRAIN) -> Example:
    """Return a page full of text, without an answer."""
    page = dense_page(f"train {number}", split)
    return _drawn(page.layout, page.look, random.Random(f"drawn {number}"), geometry)


def answer_example(
    number: int, geometry: Geometry, ocr_share: float, split: Split = Split.TRAIN
) -> Example:
    """Return a document's page and its record, or in `ocr_share` of cases the page's text."""
    rng = random.Random(f"drawn {number}")
    document = make_document(f"{split} {number}", split)
    page = document.pages[0]
    if rng.random() < ocr_share:
        schema_id, traced = TEXT_SCHEMA, traced_page(page.layout)
    else:
        schema_id, traced = RECEIPT_SCHEMA, traced_record(page.receipt, page.layout.glyphs())
    return _drawn(page.layout, page.look, rng, geometry, schema_id, traced)


def _drawn(
    layout: Layout,
    look: Look,
    rng: random.Random,
    geometry: Geometry,
    schema_id: str = "",
    traced: TracedText | None = None,
) -> Example:
    image = draw_page(layout, look, rng.choices(_SCALES, _SCALE_WEIGHTS)[0])
    if image.size != geometry.size:  # as `pipeline.render.images` shrinks a scan
        image = image.resize(geometry.size, Pillow.Resampling.BILINEAR)
    glyphs = layout.glyphs()
    places = glyph_patches(glyphs, look, geometry.grid, geometry.patch)
    answer = None
    if traced is not None:
        cells = [int(row) * geometry.grid[0] + int(column) for row, column in places]
        patches = tuple(NOWHERE if i == NOWHERE else cells[i] for i in traced.sources)
        answer = Answer(schema_id, traced.text, patches)
    tile = np.asarray(image)[:, :, np.newaxis]
    return Example(tile, patch_characters(glyphs, places, geometry.grid), answer)
