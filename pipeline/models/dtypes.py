"""The type that weights are held in."""

from __future__ import annotations

BYTES_OF = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes that a weight takes in each type that `effective_dtype` returns."""


def effective_dtype(dtype: str, on_gpu: bool) -> str:
    """Return the type that `model.dtype` means on a device: "auto" depends on it."""
    if dtype != "auto":
        return dtype
    # Half precision is slower than float32 on most CPUs, and answers are exact in float32.
    return "bfloat16" if on_gpu else "float32"
