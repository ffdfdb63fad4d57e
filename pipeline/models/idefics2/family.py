"""Idefics2: both halves built from one checkpoint folder or hub id.

Laurençon et al., "What matters when building vision-language models?", arXiv:2405.02246.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline.conversation import Conversation
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, Model, Placement
from pipeline.models.chat import render
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.models.processors import image_setting, load_config, shared_processor

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].capitalize() }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""What the chat checkpoints were trained with (the published processor's own, to the letter)."""


class Idefics2Family:
    """Builds the encoder, the prompt and the model with the stock transformers classes."""

    def encoder(self, checkpoint: Checkpoint, settings: ModelSettings) -> Idefics2Encoder:
        """Read the checkpoint's image processor into an encoder. Raises CheckpointError."""
        asked = settings.image_splitting
        setting = partial(image_setting, checkpoint, shared_processor(checkpoint))
        splitting = bool(setting("do_image_splitting", 0) if asked == "auto" else asked)
        if splitting and checkpoint.canvas is not None:
            raise CheckpointError(
                f"model.image_splitting: '{checkpoint.name}' reads pages of one fixed size, whole; "
                "set it to false"
            )
        longest, shortest = _edges(checkpoint, settings, setting)
        return Idefics2Encoder(longest, shortest, splitting, checkpoint.canvas)

    def prompt(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        conversation: Conversation,
        schema_id: str,
    ) -> str:
        """Return the conversation as the checkpoint wants it, one `<image>` an image."""
        return render(
            shared_processor(checkpoint),
            conversation,
            style=settings.chat_template,
            schema_id=schema_id,
            name=checkpoint.name,
            default=CHAT_TEMPLATE,
        )

    def load(self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement) -> Model:
        """Load the weights. Raises CheckpointError."""
        from pipeline.models.idefics2.model import Idefics2Model
        from pipeline.models.token_by_token import stepping

        return stepping(Idefics2Model(checkpoint, settings, placement), checkpoint.name)


def _edges(
    checkpoint: Checkpoint, settings: ModelSettings, trained: Callable[[str], int]
) -> tuple[int, int]:
    """Return the bounds of a tile's sides, in pixels: the checkpoint's, or the job's."""
    longest = settings.longest_edge or trained("size.longest_edge")
    shortest = settings.shortest_edge or min(longest, trained("size.shortest_edge"))
    if settings.longest_edge is None and settings.shortest_edge is None:
        return longest, shortest
    key = "shortest_edge" if settings.longest_edge is None else "longest_edge"
    if checkpoint.canvas is not None:
        raise CheckpointError(
            f"model.{key}: '{checkpoint.name}' reads pages of one fixed size; remove it"
        )
    vision = load_config(checkpoint).vision_config
    if not vision.patch_size <= longest <= vision.image_size:
        raise CheckpointError(
            f"model.longest_edge: {longest} is not from {vision.patch_size} to "
            f"{vision.image_size}, the sizes that '{checkpoint.name}' sees"
        )
    if not vision.patch_size <= shortest <= longest:
        raise CheckpointError(
            f"model.shortest_edge: {shortest} is not from {vision.patch_size} to the longest "
            f"edge, {longest}"
        )
    return longest, shortest
