"""Loading a stock model's weights the way a job asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText
from transformers.utils import logging

from pipeline.errors import CheckpointError, one_line
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.adapters import adapter_folder, load_adapter
from pipeline.models.attention import choose_attention, facts
from pipeline.models.base import Checkpoint
from pipeline.models.checkpoint_files import read_config, stored_tensors, weights_folder
from pipeline.models.devices import free_bytes
from pipeline.models.dtypes import effective_dtype
from pipeline.models.quantization import (
    loading_quantized,
    quantization_of,
    without_cpu_kernels,
)
from pipeline.models.weight_size import check_room

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_weights(checkpoint: Checkpoint, settings: ModelSettings, device: torch.device) -> Any:
    """Return the checkpoint's stock model on a device, to answer and not to learn.

    Raises
    ------
    CheckpointError
        If it or its adapter cannot be fetched, does not fit, or cannot be loaded as asked.
    """
    # All that can be refused is, before the weights, which take minutes.
    adapter = None if settings.adapter is None else adapter_folder(settings.adapter)
    folder = weights_folder(checkpoint)
    dtype = effective_dtype(settings.dtype, on_gpu=device.type == "cuda")
    held, stored = quantization_of(settings, read_config(folder))
    place = "the CPU" if device.type == "cpu" else "the GPU"
    tensors = stored_tensors(checkpoint, folder)
    check_room(
        checkpoint.name, tensors, dtype, "none" if stored else held, free_bytes(device), place
    )
    options = {
        **loading_quantized(held, stored, _DTYPES[dtype]),
        "dtype": _DTYPES[dtype],
        "attn_implementation": _attention(checkpoint, folder, settings, dtype, device),
    }
    if held != "none":  # quantized where they will stay: they cannot be moved
        options["device_map"] = {"": _index(device)}
    with _quiet():
        model = _load(checkpoint, folder, options)
        if held == "none":
            model.to(device)
        if settings.adapter is not None and adapter is not None:
            load_adapter(model, settings.adapter, adapter)
        without_cpu_kernels(model)
    return model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loader's tables of what did not fit from people: they are told in one line."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _load(checkpoint: Checkpoint, folder: Path, options: dict[str, Any]) -> Any:
    try:
        model, report = AutoModelForImageTextToText.from_pretrained(
            str(folder),
            output_loading_info=True,
            use_safetensors=True,  # a pickle may run whatever it likes
            ignore_mismatched_sizes=True,  # told below, better than by the loader
            trust_remote_code=checkpoint.remote_code,
            **options,
        )
        if wrong := sorted(report["mismatched_keys"]):
            name, stored, expected = wrong[0]
            raise ValueError(
                f"{len(wrong)} of its weights are of other shapes than its config.json says, such "
                f"as {name}: {tuple(stored)}, not {tuple(expected)}"
            )
        if missing := sorted(report["missing_keys"]):
            # The loader has made them up, and the answers would mean nothing.
            raise ValueError(f"its files lack {len(missing)} weights, such as {missing[0]}")
    except Exception as error:  # what the loader raises for a broken file is anybody's guess
        raise CheckpointError(
            f"model.name: '{checkpoint.name}' does not load: {one_line(error)}"
        ) from error
    return model


def _attention(
    checkpoint: Checkpoint, folder: Path, settings: ModelSettings, dtype: str, device: torch.device
) -> str:
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=checkpoint.remote_code)
        model_class = AutoModelForImageTextToText._model_mapping.get(type(config), None)
    except Exception:  # the loader says in its own words what is wrong with the config
        model_class = None
    return choose_attention(settings.attention, dtype, facts(device, model_class))


def _index(device: torch.device) -> str | int:
    if device.type != "cuda":
        return str(device)
    return torch.cuda.current_device() if device.index is None else device.index
