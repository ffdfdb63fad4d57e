"""encode: the Pages of one sample -> Sample. uint8 tiles; the model process does the rest."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import ItemError, one_line
from pipeline.models.base import PageEncoder
from pipeline.records import FailureKind, Page, Sample, SampleId


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
    return Sample(id=sample_id, tiles=tiles, words=tuple(page.words for page in pages))
