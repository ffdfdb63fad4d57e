"""IDEFICS, the first: both halves built from one checkpoint folder or hub id.

Laurençon et al., "OBELICS: An Open Web-Scale Filtered Dataset of Interleaved Image-Text
Documents", arXiv:2306.16527.
"""

from __future__ import annotations

from pipeline.conversation import Conversation
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint, Model, Placement
from pipeline.models.chat import render
from pipeline.models.idefics.encoder import IdeficsEncoder
from pipeline.models.processors import image_setting, shared_processor

END_OF_UTTERANCE = "<end_of_utterance>"
"""Known to the tokenizers of the instructed checkpoints only."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'].capitalize() }}"
    "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}{% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '\\n' if message['role'] == 'system' else '<end_of_utterance>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""The dialogue of the published model cards; what is said before it has no speaker."""


class IdeficsFamily:
    """Builds the encoder, the prompt and the model with the stock transformers classes."""

    def encoder(self, checkpoint: Checkpoint, settings: ModelSettings) -> IdeficsEncoder:
        """Read the checkpoint's image processor into an encoder.

        Raises
        ------
        CheckpointError
            Also for settings that mean nothing to this family.
        """
        processor = shared_processor(checkpoint)
        edge = image_setting(checkpoint, processor, "image_size")
        _check(settings, f"'{checkpoint.name}' reads each page as one image of {edge} x {edge} px")
        return IdeficsEncoder(
            edge=edge, resample=image_setting(checkpoint, processor, "resample", 0)
        )

    def prompt(
        self,
        checkpoint: Checkpoint,
        settings: ModelSettings,
        conversation: Conversation,
        schema_id: str,
    ) -> str:
        """Return the conversation as the checkpoint wants it, one `<image>` an image.

        Published checkpoints bring no chat template: those that know the end of an utterance were
        taught the dialogue of their model cards, which is the default here.
        """
        processor = shared_processor(checkpoint)
        instructed = END_OF_UTTERANCE in processor.tokenizer.get_vocab()
        default = CHAT_TEMPLATE if instructed else CHAT_TEMPLATE.replace(END_OF_UTTERANCE, "")
        # The stock class lets go of a template that a folder has; its tokenizer does not.
        own = processor.chat_template or processor.tokenizer.chat_template
        return render(
            processor,
            conversation,
            style=settings.chat_template,
            schema_id=schema_id,
            name=checkpoint.name,
            default=default,
            own=own or (default if instructed else None),
        )

    def load(self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement) -> Model:
        """Load the weights. Raises CheckpointError."""
        from pipeline.models.idefics.model import IdeficsModel

        return IdeficsModel(checkpoint, settings, placement)


def _check(settings: ModelSettings, why: str) -> None:
    if settings.image_splitting in (True, "adaptive"):
        raise CheckpointError(f"model.image_splitting: {why}; set it to false or auto")
    for key in ("longest_edge", "shortest_edge"):
        if getattr(settings, key) is not None:
            raise CheckpointError(f"model.{key}: {why}; leave it out")
    if settings.attention == "flash_attention_2":
        raise CheckpointError(
            "model.attention: IDEFICS masks which images a text sees, and its stock class has no "
            "flash attention; set it to sdpa, eager or auto"
        )
