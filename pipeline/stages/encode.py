"""encode: the Pages of one sample -> Sample. uint8 tiles; the model process does the rest."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.models.base import PageEncoder
from pipeline.records import Page, Sample, SampleId


def encode(sample_id: SampleId, pages: Sequence[Page], encoder: PageEncoder) -> Sample:
    """Split and resize each page into the tiles the vision tower reads."""
    return Sample(
        id=sample_id,
        tiles=tuple(encoder.encode(page.image) for page in pages),
        words=tuple(page.words for page in pages),
    )
