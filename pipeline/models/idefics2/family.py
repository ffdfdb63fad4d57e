"""Idefics2: both halves built from one checkpoint folder or hub id.

Laurençon et al., "What matters when building vision-language models?", arXiv:2405.02246.
"""

from __future__ import annotations

import logging
from typing import Any

from pipeline.errors import CheckpointError, one_line
from pipeline.job import Model as ModelSettings
from pipeline.models.base import Checkpoint, Model, Placement
from pipeline.models.idefics2.encoder import Idefics2Encoder

_log = logging.getLogger(__name__)


class Idefics2Family:
    """Builds the encoder, the prompt and the model with the stock transformers classes."""

    def encoder(self, checkpoint: Checkpoint, settings: ModelSettings) -> Idefics2Encoder:
        """Read the checkpoint's image processor into an encoder. Raises CheckpointError."""
        images = load_processor(checkpoint).image_processor
        asked = settings.image_splitting
        splitting = bool(images.do_image_splitting) if asked == "auto" else asked
        if splitting and checkpoint.canvas is not None:
            raise CheckpointError(
                f"model.image_splitting: '{checkpoint.name}' reads pages of one fixed size, whole; "
                "set it to false"
            )
        return Idefics2Encoder(
            longest_edge=int(images.size["longest_edge"]),
            shortest_edge=int(images.size["shortest_edge"]),
            splitting=splitting,
            canvas=checkpoint.canvas,
        )

    def prompt(
        self, checkpoint: Checkpoint, instructions: str, n_pages: int, schema_id: str
    ) -> str:
        """Render the chat template: the instructions, then the pages' images."""
        processor = load_processor(checkpoint)
        if processor.chat_template is None:
            raise CheckpointError(
                f"model.name: '{checkpoint.name}' has no chat template; use a chat checkpoint, or "
                "add a chat_template.jinja to it"
            )
        return render_prompt(processor, instructions, n_pages, schema_id)

    def load(self, checkpoint: Checkpoint, settings: ModelSettings, placement: Placement) -> Model:
        """Load the weights. Raises CheckpointError."""
        from pipeline.models.decoder import UnknownDecoder
        from pipeline.models.idefics2.model import Idefics2Model
        from pipeline.models.idefics2.stepping import SteppingIdefics2

        whole = Idefics2Model(checkpoint, settings, placement)
        try:
            return SteppingIdefics2(whole)
        except UnknownDecoder as error:
            _log.warning("%s: %s; it answers in static batches", checkpoint.name, error)
            return whole


def render_prompt(processor: Any, instructions: str, n_pages: int, schema_id: str) -> str:
    """Return the prompt as text, one `<image>` a page, without the token that begins a sequence.

    The instructions come first, so that the engine reads them once for all pages.

    The template may also use `schema_id`, which tells a small model what it is asked for.
    """
    content = [{"type": "text", "text": instructions}, *[{"type": "image"}] * n_pages]
    # transformers complains of variables that a template does not name.
    named = "schema_id" in (processor.chat_template or "")
    rendered: str = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        **({"schema_id": schema_id} if named else {}),
    )
    # The tokenizer adds the beginning-of-sequence token itself.
    return rendered.strip(" \n").removeprefix(processor.tokenizer.bos_token or "\0")


def load_processor(checkpoint: Checkpoint) -> Any:
    """Load the stock `Idefics2Processor` with its Pillow backend.

    The backend is pinned, because the torchvision one gives other pixels.

    Raises
    ------
    CheckpointError
        If the files are missing or broken.
    """
    from transformers import AutoProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        processor = AutoProcessor.from_pretrained(
            checkpoint.location, backend="pil", **loading(checkpoint)
        )
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(
            f"model.name: the processor of '{checkpoint.name}' does not load: {one_line(error)}"
        ) from error
    processor.tokenizer.padding_side = "left"
    return processor


def loading(checkpoint: Checkpoint) -> dict[str, Any]:
    """Keyword arguments for all stock loaders: a hub checkpoint's revision, and whose code runs."""
    from_hub = checkpoint.location == checkpoint.name
    pinned = {"revision": checkpoint.revision} if from_hub else {}
    return {"trust_remote_code": checkpoint.remote_code, **pinned}
