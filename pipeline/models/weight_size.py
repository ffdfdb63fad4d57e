"""What a checkpoint's weights take in memory, known before any of them is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Checkpoint
from pipeline.models.checkpoint_files import (
    has_weights,
    is_on_hub,
    read_config,
    settings_folder,
    stored_tensors,
)
from pipeline.models.dtypes import BYTES_OF, effective_dtype
from pipeline.models.quantization import BYTES, is_quantized, stored_quantization
from pipeline.models.safetensors_header import StoredTensor

_BESIDE_WEIGHTS = ("absmax", "quant_map", "SCB", "weight_format")
"""Endings of what bitsandbytes stores beside weights that it has quantized."""

_STORED_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}


@dataclass(frozen=True, slots=True)
class WeightSize:
    """How many parameters, and how many bytes they take once loaded."""

    parameters: int
    bytes: int


def weight_size(
    tensors: Sequence[StoredTensor], dtype: str, quantization: str = "none"
) -> WeightSize:
    """Add up tensors that are loaded as `dtype`, and quantized on the way.

    Whole numbers are weights that were quantized before, and stay as they are.
    """
    parameters, total = 0, 0.0
    for tensor in tensors:
        count = prod(tensor.shape)
        if not tensor.name.endswith(_BESIDE_WEIGHTS) and ".quant_state." not in tensor.name:
            parameters += 2 * count if tensor.dtype == "U8" else count  # NF4 packs two weights
        if not tensor.dtype.startswith(("F", "BF")):
            total += count * _STORED_BYTES.get(tensor.dtype[1:], 1)
        elif quantization in BYTES and is_quantized(tensor.name, tensor.shape):
            total += count * BYTES[quantization]
        else:
            total += count * BYTES_OF[dtype]
    return WeightSize(parameters, round(total))


def describe_weights(
    checkpoint: Checkpoint, settings: ModelSettings, *, on_gpu: bool
) -> str | None:
    """Say in one line what the model's weights will take, None for a model that has none.

    Raises
    ------
    CheckpointError
        If the weights of a folder are not there, or not whole. What the hub's cache lacks or has
        in part is not fatal here: it is fetched by the model's process, where the weights are.
    """
    if checkpoint.family == "fake":
        return None
    folder = settings_folder(checkpoint)
    here = has_weights(checkpoint, folder)
    try:
        tensors = stored_tensors(checkpoint, folder)
    except CheckpointError as error:
        if not is_on_hub(checkpoint):
            raise
        if here:
            return f"model {checkpoint.name}: its weights are to be fetched from the hub again"
        return f"model {checkpoint.name}: its weights are not on this machine ({error})"
    stored = stored_quantization(read_config(folder))
    dtype = effective_dtype(settings.dtype, on_gpu)
    quantization = "none" if stored is not None else settings.quantization
    size = weight_size(tensors, dtype, quantization)
    held = [kind for kind in (stored or quantization, dtype) if kind != "none"]
    return (
        f"model {checkpoint.name}: {_short(size.parameters, 'K', 'M', 'B')} parameters, "
        f"{_in_bytes(size.bytes)} of weights in {' and '.join(held)}"
        f"{'' if here else ', to be fetched from the hub first'}"
    )


def check_room(
    name: str, tensors: Sequence[StoredTensor], dtype: str, quantization: str, free: int, place: str
) -> None:
    """Refuse weights that do not fit into the `free` bytes of a place ("the CPU").

    Raises CheckpointError, which says what would fit.
    """
    needed = weight_size(tensors, dtype, quantization).bytes
    if needed <= free:
        return
    others = [
        (f"model.quantization: {kind}", weight_size(tensors, dtype, kind).bytes)
        for kind in ("int8", "nf4")
        if quantization == "none" and any(t.dtype.startswith(("F", "BF")) for t in tensors)
    ]
    if BYTES_OF[dtype] > 2:
        others.insert(0, ("model.dtype: bfloat16", weight_size(tensors, "bfloat16").bytes))
    fitting = [f"{change} takes {_in_bytes(size)}" for change, size in others if size <= free]
    mend = ", ".join(fitting) or "take one with more memory, or a smaller model"
    held = dtype if quantization == "none" else f"{quantization} and {dtype}"
    raise CheckpointError(
        f"model.name: the weights of '{name}' take {_in_bytes(needed)} in {held}, and {place} has "
        f"{_in_bytes(free)} free; {mend}"
    )


def _in_bytes(count: int) -> str:
    return _short(count, "kB", "MB", "GB")


def _short(count: int, thousand: str, million: str, billion: str) -> str:
    for size, unit in ((10**9, billion), (10**6, million)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1000:.3g} {thousand}"
