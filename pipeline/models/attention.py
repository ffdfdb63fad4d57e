"""Which attention kernel a model runs with: asked for by the job, allowed by the machine."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch

from pipeline.errors import CheckpointError, one_line

_FLASH = "flash_attention_2"
_LEAST_CAPABILITY = (8, 0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What flash attention depends on.

    `capability` is that of the GPU that the model would run on, None for a CPU; `package_error`
    says why flash_attn cannot be used, None if it can; `in_model` that the model's class knows it.
    """

    capability: tuple[int, int] | None
    package_error: str | None = None
    in_model: bool = True


def facts(device: torch.device, model_class: type | None) -> Facts:
    """Look at a device, at the packages, and at the class of a model."""
    in_model = bool(getattr(model_class, "_supports_flash_attn", False))
    if device.type != "cuda":
        return Facts(None, in_model=in_model)
    return Facts(torch.cuda.get_device_capability(device), _package_error(), in_model)


def choose_attention(asked: str, dtype: str, found: Facts) -> str:
    """Return the kernel for `model.attention` and the type that attention computes in.

    Raises
    ------
    CheckpointError
        If flash attention is asked for by name and cannot run.
    """
    if asked not in ("auto", _FLASH):
        return asked
    obstacle = _obstacle(dtype, found)
    if obstacle is None:
        return _FLASH
    if asked == "auto":
        return "sdpa"
    raise CheckpointError(f"model.attention: {_FLASH} {obstacle}; leave it at auto")


def _obstacle(dtype: str, found: Facts) -> str | None:
    if not found.in_model:
        return "is not known to this model's class"
    if found.capability is None:
        return "needs a GPU, and the model runs on the CPU (resources.gpus_per_actor)"
    if found.capability < _LEAST_CAPABILITY:
        has = ".".join(map(str, found.capability))
        return f"needs a GPU of compute capability 8.0 or more, and this one has {has}"
    if dtype == "float32":
        return "computes in half precision only, and model.dtype is float32"
    return found.package_error


def _package_error() -> str | None:
    from transformers.utils import is_flash_attn_2_available

    if not is_flash_attn_2_available():
        return "needs the flash-attn package (2.3.3 or later); pip install pagelake[gpu]"
    try:  # built for another torch, it is there and does not load
        import_module("flash_attn")
    except Exception as error:
        return f"finds a flash-attn package that does not load: {one_line(error)}"
    return None
