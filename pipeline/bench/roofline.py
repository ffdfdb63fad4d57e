"""What this machine could do at best, and what of it a model step reaches.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 2009.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Machine:
    """Measured rates: floating-point operations a second of a large matrix product, and bytes a
    second of a pass over memory far beyond the caches."""

    flops: float
    bandwidth: float

    def seconds(self, flops: float, moved: float) -> float:
        """Return the least time for so many operations and bytes of memory traffic."""
        return max(flops / self.flops, moved / self.bandwidth)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a page's answer needs: operations, and bytes read that no cache could keep."""

    flops: float
    moved: float


def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure both rates, for about a second."""
    size = 8192 if device.type == "cuda" else 1536
    one = torch.randn(size, size, device=device).to(dtype)
    product = _rate(lambda: torch.mm(one, one), device)
    block = torch.ones((1 << 28) // dtype.itemsize, dtype=dtype, device=device)
    # In place, so every byte is read and written.
    stream = _rate(lambda: block.mul_(1.0), device)
    return Machine(2 * size**3 * product, 2 * block.numel() * dtype.itemsize * stream)


def _rate(work: Callable[[], object], device: torch.device) -> float:
    """Return the best times a second of some rounds."""
    work()
    best, began = 0.0, time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        best = max(best, 1 / (time.perf_counter() - start))
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def decode_cost(
    *, weights: int, weight_bytes: int, rows: int, passes: float, context: float, token_bytes: int
) -> Cost:
    """Return the cost of one page's answer: `weights` parameters of the text model.

    Each of a row's `passes` multiplies all weights once, reads its share of them, `rows` reading
    them together, and the row's keys and values, `context` tokens of `token_bytes`.
    """
    moved = passes * (weights * weight_bytes / rows + context * token_bytes)
    return Cost(2 * weights * passes, moved)


def prefill_cost(*, weights: int, tokens: int) -> Cost:
    """Return the cost of one page's prompt; the weights are read for many pages together."""
    return Cost(2 * weights * tokens, 0.0)
