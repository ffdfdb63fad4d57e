"""Weights in 4 or 8 bits by bitsandbytes: which of them, and what they then take.

Dettmers et al., arXiv:2305.14314 (NF4, double quantization) and arXiv:2208.07339 (LLM.int8).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings

KEPT = ("lm_head", "model.vision_model", "model.connector", "model.perceiver_resampler")
"""Modules that are never quantized.

Whatever they lose, every token loses: the head's scores are what answers and their probabilities
are made of, and all that is known of a page comes through vision and connector. They are a small
part: the text layers are 7.0 of the 8.4 billion parameters of idefics2-8b.
"""

BYTES = {"nf4": 1 / 2 + 1 / 64 + 4 / (64 * 256), "int8": 1.0}
"""Bytes a quantized weight takes. NF4 adds a scale to each 64 weights, of 8 bits after the second
quantization, and one of 32 bits to each 256 scales; int8 adds one a row, which is little."""


def is_quantized(name: str, shape: Sequence[int]) -> bool:
    """Return True for the tensors that are quantized: the matrices of the text model's layers."""
    return (
        len(shape) == 2
        and name.endswith(".weight")
        and not name.startswith(KEPT)
        and ".embed_tokens." not in name
    )


def stored_quantization(config: Mapping[str, Any]) -> str | None:
    """Return how a checkpoint's own weights are quantized, by its config.json: "nf4", "int8",
    another method's name, or None if they are not."""
    found = config.get("quantization_config")
    if not isinstance(found, Mapping):
        return None
    if found.get("load_in_4bit"):
        return str(found.get("bnb_4bit_quant_type", "fp4"))
    return "int8" if found.get("load_in_8bit") else str(found.get("quant_method", "unknown"))


def quantization_of(
    settings: ModelSettings, config: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any] | None]:
    """Return how the weights will be held, and the checkpoint's own settings if they are already.

    Raises
    ------
    CheckpointError
        If the job asks for something else than the checkpoint is, or a package is missing.
    """
    asked, stored = settings.quantization, stored_quantization(config)
    if stored is not None and asked not in ("none", stored):
        raise CheckpointError(
            f"model.quantization: the weights of '{settings.name}' are quantized already, as "
            f"{stored}; leave it out"
        )
    held = stored or asked
    if held in (*BYTES, "fp4"):
        missing = [name for name in ("bitsandbytes", "accelerate") if find_spec(name) is None]
        if missing:
            raise CheckpointError(
                f"model.quantization: {held} needs {' and '.join(missing)}; "
                "pip install pagelake[quantization]"
            )
    return held, None if stored is None else config["quantization_config"]


def loading_quantized(held: str, stored: Mapping[str, Any] | None, dtype: Any) -> dict[str, Any]:
    """Return the loader's keyword arguments; the weights compute in `dtype`, a torch.dtype.

    What is stored quantized is loaded as it is.
    """
    if held == "int8":
        # It says at every layer of every step that it rounds to float16 on the way to 8 bits.
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if stored is not None or held == "none":
        return {}
    from transformers import BitsAndBytesConfig

    if held == "int8":
        return {
            "quantization_config": BitsAndBytesConfig(
                load_in_8bit=True, llm_int8_skip_modules=list(KEPT)
            )
        }
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=list(KEPT),
        )
    }


def without_cpu_kernels(model: Any) -> None:
    """Keep bitsandbytes from rounding to bfloat16 on the CPUs that can: answers would depend on the
    machine, and its kernel takes only layers whose width is a multiple of 32."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
