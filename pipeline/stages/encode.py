"""encode: the Pages of one sample -> Sample. uint8 tiles; the model process does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.errors import ItemError, one_line
from pipeline.models.base import PageEncoder
from pipeline.printed import printed_text
from pipeline.records import FailureKind, Page, Sample, SampleId
from pipeline.selection import page_ranges


def encode(sample_id: SampleId, pages: Sequence[Page], encoder: PageEncoder) -> Sample:
    """Split and resize each page into the tiles the vision tower reads.

    Raises
    ------
    ItemError
        `out_of_memory`, or `unreadable` for an image that cannot be resized.
    """
    try:
        tiles = tuple(encoder.encode(page.image) for page in pages)
    except MemoryError as error:
        raise ItemError(FailureKind.OUT_OF_MEMORY, f"MemoryError: {one_line(error)}") from error
    except ValueError as error:
        raise ItemError(FailureKind.UNREADABLE, f"ValueError: {one_line(error)}") from error
    return replace(read_text(sample_id, pages), tiles=tiles)


def read_text(sample_id: SampleId, pages: Sequence[Page]) -> Sample:
    """Take the pages' text layers alone, for prompts that show no image."""
    return Sample(id=sample_id, tiles=(), words=tuple(page.words for page in pages))


def together(samples: Sequence[Sample]) -> Sample:
    """Make one sample of several of the same document, in page order; there is at least one."""
    return replace(
        samples[0],
        id=replace(
            samples[0].id,
            page_numbers=tuple(n for sample in samples for n in sample.id.page_numbers),
        ),
        tiles=tuple(page for sample in samples for page in sample.tiles),
        words=tuple(page for sample in samples for page in sample.words),
        rasterize_s=sum(sample.rasterize_s for sample in samples),
        encode_s=sum(sample.encode_s for sample in samples),
    )


def require_text(sample: Sample) -> None:
    """Raise ItemError `unsupported` if none of a sample's pages prints any text."""
    if not printed_text(sample.words).strip():
        numbers = sample.id.page_numbers
        pages = (
            f"page {numbers[0]} has" if len(numbers) == 1 else f"pages {page_ranges(numbers)} have"
        )
        raise ItemError(
            FailureKind.UNSUPPORTED,
            f"the prompt shows the text layer only and {pages} none; add {{page}} to it",
        )
