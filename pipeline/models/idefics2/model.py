"""The model half of Idefics2: uint8 tiles and prompts in, greedy constrained answers out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, Placement
from pipeline.models.image_text import ImageTextModel
from pipeline.tiles import Shapes

_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"
_TOUCHED = re.compile(re.escape(_FAKE) + r"(?=[^\s<])")


class Idefics2Model(ImageTextModel):
    """See `ImageTextModel`."""

    def __init__(
        self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement
    ) -> None:
        super().__init__(checkpoint, settings, placement)
        latents = self.weights.config.perceiver_config.resampler_n_latents
        if self.processor.image_seq_len != latents:
            raise CheckpointError(
                f"model.name: '{checkpoint.name}' has image_seq_len "
                f"{self.processor.image_seq_len} in its processor and {latents} latents in its "
                "model; mend processor_config.json"
            )

    def widened(self, prompt: str, shapes: Shapes) -> str:
        """Return the prompt with each image's tokens: as many for every one of its tiles.

        As `Idefics2Processor` writes them, except that images of one prompt may be split or whole.
        """
        tile = f"{_FAKE}{_IMAGE * self.processor.image_seq_len}{_FAKE}"
        first, *rest = prompt.split(_IMAGE)
        pieces = [first]
        for page, text in zip(shapes, rest, strict=True):
            pieces += [tile * len(page), text]
        joined = "".join(pieces).replace(_FAKE + _FAKE, _FAKE)
        return _TOUCHED.sub(f"{_FAKE} ", joined)

    def encoded(self, pixels: Tensor) -> Sequence[Tensor]:
        """Run the vision tower and the resampler: (latents, width) a tile."""
        found: Sequence[Tensor] = self.weights.get_image_features(
            pixel_values=pixels.unsqueeze(1)
        ).pooler_output
        return found

    def seen(self, features: Sequence[Tensor]) -> dict[str, Any]:
        """Return the features as `generate` takes them."""
        return {"mm_encoder_outputs": {"image": BaseModelOutputWithPooling(pooler_output=features)}}
