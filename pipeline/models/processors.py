"""Stock processors."""

from __future__ import annotations

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
    processor.tokenizer.padding_side = "left"
    return processor


@lru_cache(maxsize=4)
def shared_processor(checkpoint: Checkpoint, kind: str = "AutoProcessor") -> Any:
    """Return a processor as `load_processor` does, the same one again: not to be changed."""
    return load_processor(checkpoint, kind)


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
