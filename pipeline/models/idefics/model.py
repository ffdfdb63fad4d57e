"""The model half of IDEFICS: uint8 tiles and prompts in, greedy constrained answers out.

Images are no part of the text here: gated layers of cross-attention between those of the text model
look at them. A token sees one image, the last before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, Placement
from pipeline.models.image_text import ImageTextModel
from pipeline.tiles import Shapes

_FAKE, _IMAGE = "<fake_token_around_image>", "<image>"


class IdeficsModel(ImageTextModel):
    """See `ImageTextModel`."""

    text_parts = ("model.layers", "model.norm", "model.embed_tokens.weight")
    """Not the embeddings of the tokens that came with images, nor what looks at them."""

    def __init__(
        self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement
    ) -> None:
        if settings.attention == "auto":  # which would be flash attention on some GPUs
            settings = settings.model_copy(update={"attention": "sdpa"})
        super().__init__(checkpoint, settings, placement)
        made = self.processor.image_processor.image_size
        read = self.weights.config.vision_config.image_size
        if made != read:
            raise CheckpointError(
                f"model.name: '{checkpoint.name}' makes images of {made} pixels in its processor "
                f"and reads {read} in its model; mend image_size in its preprocessor's file"
            )

    @property
    def vocabulary_size(self) -> int:
        """The text model's own tokens, and those that came with images."""
        config = self.weights.config
        return int(config.vocab_size + config.additional_vocab_size)

    def widened(self, prompt: str, shapes: Shapes) -> str:
        """Return the prompt as `IdeficsProcessor` writes it: no blanks around an image, and one
        fake token between images that touch."""
        if any(len(page) != 1 for page in shapes) or prompt.count(_IMAGE) != len(shapes):
            raise ValueError(f"{len(shapes)} images for {prompt.count(_IMAGE)} places in a prompt")
        texts = (text.strip(" ") for text in prompt.split(_IMAGE))
        return f"{_FAKE}{_IMAGE}{_FAKE}".join(texts).replace(_FAKE + _FAKE, _FAKE)

    def tokenized(self, prompts: list[str]) -> Any:
        """Return ids and mask; whether or not the tokenizer begins texts by itself, once."""
        tokenizer = self.processor.tokenizer
        begun = [tokenizer.bos_token + prompt for prompt in prompts]
        return tokenizer(begun, add_special_tokens=False, padding=True, return_tensors="pt")

    def encoded(self, pixels: Tensor) -> Sequence[Tensor]:
        """Run the vision tower and, where there is one, the resampler: (tokens, width) a tile."""
        model = self.weights.model
        found: Sequence[Tensor] = model.vision_model(pixel_values=pixels).last_hidden_state
        if self.weights.config.use_resampler:
            found = model.perceiver_resampler(found)
        return found

    def seen(self, features: Sequence[Tensor]) -> dict[str, Any]:
        """Return features, (images, tokens, width) a prompt, as `generate` takes them."""
        return {"image_hidden_states": torch.stack(list(features))}

    def beside(
        self, ids: Tensor, counts: Sequence[int], features: Sequence[Tensor]
    ) -> dict[str, Any]:
        """Return features and mask. Prompts with fewer images than others get blank ones, which
        no token sees; so does a batch without any, because the stock model wants something."""
        width = self.weights.config.vision_config.embed_dim
        shape = features[0].shape if features else (1, width)
        dtype = features[0].dtype if features else self.weights.dtype
        blank = ids.new_zeros(shape, dtype=dtype)
        most, remaining = max(1, *counts), iter(features)
        rows = [
            torch.stack([next(remaining) if i < count else blank for i in range(most)])
            for count in counts
        ]
        tokenizer = self.processor.tokenizer
        mask = images_seen(
            ids, tokenizer.convert_tokens_to_ids(_IMAGE), tokenizer.eos_token_id, most
        )
        return {**self.seen(rows), "image_attention_mask": mask}

    def taught(
        self, ids: Tensor, counts: Sequence[int], features: Sequence[Tensor]
    ) -> dict[str, Any]:
        """Return the same under the names that `generate` hands features on by."""
        beside = self.beside(ids, counts, features)
        resampled = self.weights.config.use_resampler
        name = "perceiver_embeddings" if resampled else "image_encoder_embeddings"
        return {name: beside.pop("image_hidden_states"), **beside}


def images_seen(ids: Tensor, image: int, end: int, images: int) -> Tensor:
    """Return bool (rows, tokens, images): a token sees the last image up to it.

    What follows the token `end` of a sequence sees none before the next image.
    """
    places = torch.arange(ids.shape[1], device=ids.device)
    shown = torch.where(ids == image, places, -1).cummax(1).values
    ended = torch.where(ids == end, places, -1).cummax(1).values.roll(1, 1)
    ended[:, 0] = -1
    last = (ids == image).cumsum(1) - 1
    seen = last.unsqueeze(2) == torch.arange(images, device=ids.device)
    return seen & (ended < shown).unsqueeze(2)
