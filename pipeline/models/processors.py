"""Stock processors and how stock loaders are called."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from pipeline.errors import CheckpointError, one_line
from pipeline.models.base import Checkpoint


def load_processor(checkpoint: Checkpoint, kind: str = "AutoProcessor") -> Any:
    """Load the stock processor with its Pillow backend.

    The backend is pinned, because the torchvision one gives other pixels. `kind` names a class of
    transformers: a family may do with less than what the checkpoint itself names.

    Raises
    ------
    CheckpointError
        If the files are missing or broken.
    """
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        processor = getattr(transformers, kind).from_pretrained(
            checkpoint.location, backend="pil", **loading(checkpoint)
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

    try:
        return AutoConfig.from_pretrained(checkpoint.location, **loading(checkpoint))
    except Exception as error:  # as above
        raise CheckpointError(
            f"model.name: the config of '{checkpoint.name}' does not load: {one_line(error)}"
        ) from error


def loading(checkpoint: Checkpoint) -> dict[str, Any]:
    """Keyword arguments for all stock loaders: a hub checkpoint's revision, and whose code runs."""
    from_hub = checkpoint.location == checkpoint.name
    pinned = {"revision": checkpoint.revision} if from_hub else {}
    return {"trust_remote_code": checkpoint.remote_code, **pinned}
