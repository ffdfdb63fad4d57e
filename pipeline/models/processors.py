"""Stock processors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pipeline.errors import CheckpointError, one_line
from pipeline.models.base import Checkpoint
from pipeline.models.checkpoint_files import settings_folder


def load_processor(checkpoint: Checkpoint, kind: str = "AutoProcessor") -> Any:
    """Load the stock processor with its Pillow backend.

    The backend is pinned, because the torchvision one gives other pixels. `kind` names a class of
    transformers: a family may do with less than what the checkpoint itself names.

    Raises
    ------
    CheckpointError
        If the files are missing or broken, or cannot be fetched.
    """
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = settings_folder(checkpoint)
    try:
        processor = getattr(transformers, kind).from_pretrained(
            str(folder), backend="pil", trust_remote_code=checkpoint.remote_code
        )
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(
            f"model.name: the processor of '{checkpoint.name}' does not load: {one_line(error)}"
        ) from error
    if not (hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")):
        raise CheckpointError(
            f"model.name: '{checkpoint.name}' has no processor of both images and text, but a "
            f"{type(processor).__name__}"
        )
    processor.tokenizer.padding_side = "left"
    return processor


@lru_cache(maxsize=4)
def shared_processor(checkpoint: Checkpoint, kind: str = "AutoProcessor") -> Any:
    """Return a processor as `load_processor` does, the same one again: not to be changed."""
    return load_processor(checkpoint, kind)


def image_setting(checkpoint: Checkpoint, processor: Any, key: str, least: int = 1) -> int:
    """Return a whole number of a processor's images, by its key there: "size.longest_edge".

    Raises CheckpointError if there is none, or it is less than `least`.
    """
    value = processor.image_processor
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    if not isinstance(value, int) or value < least:
        raise CheckpointError(
            f"model.name: the processor of '{checkpoint.name}' has no usable {key}; mend its "
            "preprocessor_config.json or processor_config.json"
        )
    return int(value)


def load_config(checkpoint: Checkpoint) -> Any:
    """Load the stock configuration. Raises CheckpointError if it is missing or broken."""
    from transformers import AutoConfig

    folder = settings_folder(checkpoint)
    try:
        return AutoConfig.from_pretrained(str(folder), trust_remote_code=checkpoint.remote_code)
    except Exception as error:  # as above
        raise CheckpointError(
            f"model.name: the config of '{checkpoint.name}' does not load: {one_line(error)}"
        ) from error
