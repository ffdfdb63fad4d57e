"""The sample that proves that the model works."""

from __future__ import annotations

import numpy as np

from pipeline.records import Page, Sample, SampleId, Word
from pipeline.runners.recipe import Recipe
from pipeline.stages.encode import encode, read_text


def blank_sample(recipe: Recipe) -> Sample:
    """Return a white page of A4, or a word of text where prompts show no images."""
    plan = recipe.encoder.plan_page(595, 842, True)
    image = np.full((plan.canvas_height, plan.canvas_width, 1), 255, np.uint8)
    page = Page(1, image, (Word("blank", 0, 0, 1, 1),))
    sample_id = SampleId("0" * 64, "a blank page", 1, (1,))
    if not recipe.shows_images:
        return read_text(sample_id, (page,))
    return encode(sample_id, (page,), recipe.encoder)
