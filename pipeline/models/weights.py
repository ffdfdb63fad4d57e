"""Loading a stock model's weights the way a job asks for."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import AutoModelForImageTextToText

from pipeline.errors import CheckpointError, one_line
from pipeline.job import Model as ModelSettings
from pipeline.models.base import Checkpoint
from pipeline.models.dtypes import effective_dtype
from pipeline.models.processors import loading

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ADAPTER = "adapter_model.safetensors"


def load_weights(checkpoint: Checkpoint, settings: ModelSettings, device: torch.device) -> Any:
    """Return the checkpoint's stock model on a device, to answer and not to learn.

    Raises
    ------
    CheckpointError
        If it or its adapter cannot be loaded as asked.
    """
    if settings.adapter is not None:
        _check_adapter(settings.adapter)  # before the weights, which take minutes
    dtype = effective_dtype(settings.dtype, on_gpu=device.type == "cuda")
    attention = settings.attention
    if attention == "auto":
        flash = device.type == "cuda" and find_spec("flash_attn") is not None
        attention = "flash_attention_2" if flash and dtype != "float32" else "sdpa"
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            checkpoint.location,
            dtype=_DTYPES[dtype],
            attn_implementation=attention,
            output_loading_info=True,
            use_safetensors=True,  # a pickle may run whatever it likes
            **loading(checkpoint),
        )
        if missing := sorted(report["missing_keys"]):
            # The loader has made them up, and the answers would mean nothing.
            raise ValueError(f"its files lack {len(missing)} weights, such as {missing[0]}")
        model.to(device)
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(
            f"model.name: '{checkpoint.name}' does not load: {one_line(error)}"
        ) from error
    if settings.adapter is not None:
        _load_adapter(model, settings.adapter)
    return model.eval()


def _check_adapter(adapter: str) -> None:
    path = Path(adapter).expanduser()
    if adapter.startswith((".", "/", "~")) and not path.is_dir():
        raise CheckpointError(
            f"model.adapter: there is no folder '{adapter}'; give a folder made by "
            "save_pretrained, or a hub id (owner/name)"
        )
    if find_spec("peft") is None:
        raise CheckpointError(
            "model.adapter: needs the peft package; pip install pagelake[adapters]"
        )
    try:  # its loader would be content with a pickle, which may run whatever it likes
        found = (path / _ADAPTER).is_file() if path.is_dir() else hf_hub_download(adapter, _ADAPTER)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(f"model.adapter: '{adapter}': {one_line(error)}") from error
    if not found:
        raise CheckpointError(f"model.adapter: '{adapter}' has no {_ADAPTER}; save it as such")


def _load_adapter(model: Any, adapter: str) -> None:
    path = Path(adapter).expanduser()
    try:
        report = model.load_adapter(str(path) if path.is_dir() else adapter)
        if missing := sorted(report.missing_keys):
            raise ValueError(f"its files lack {len(missing)} weights, such as {missing[0]}")
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(
            f"model.adapter: '{adapter}' does not load: {one_line(error)}"
        ) from error
