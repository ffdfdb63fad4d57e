"""What this machine could do at best, and what of it a model step reaches.

Williams, Waterman, Patterson, "Roofline: an insightful visual performance model", CACM 2009.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True, slots=True)
class TextShape:
    """Parameters of matrix products by what they are applied to, and what a token leaves behind.

    `all_weights` are applied to each token, `choice_weights` only where something is chosen: of the
    last layer what comes behind its keys and values, and the output head.
    """

    all_weights: int
    choice_weights: int
    weight_bytes: int
    token_bytes: int

    def flops(self, tokens: float, choices: float) -> float:
        """Return the operations of products; attention's own are few beside, and left out."""
        return 2 * (self.all_weights * tokens + self.choice_weights * choices)

    @property
    def moved(self) -> int:
        """Bytes of all weights."""
        return (self.all_weights + self.choice_weights) * self.weight_bytes


def decode_cost(
    shape: TextShape, *, rows: int, tokens: float, choices: float, passes: float, context: float
) -> Cost:
    """Return the cost of one page's answer of so many tokens, `choices` of them chosen.

    Each of its `passes` reads its share of the weights, `rows` reading them together, and the row's
    keys and values, `context` tokens of them.
    """
    moved = passes * (shape.moved / rows + context * shape.token_bytes)
    return Cost(shape.flops(tokens, choices), moved)


def prefill_cost(shape: TextShape, *, rows: int, tokens: int) -> Cost:
    """Return the cost of one page's prompt; `rows` prompts read the weights together."""
    return Cost(shape.flops(tokens, 1), shape.moved / rows)


@dataclass(frozen=True, slots=True)
class VisionShape:
    """Parameters of matrix products by what they are applied to, and the sizes of attention.

    `patch_weights` are applied to each patch, `mixed_weights` to each patch and latent (the keys
    and values of the resampler), `latent_weights` to each latent. Widths are those of all heads.
    """

    patch_weights: int
    mixed_weights: int
    latent_weights: int
    layers: int
    width: int
    latents: int
    resampler_layers: int
    resampler_width: int


def vision_cost(
    shape: VisionShape, tiles: Sequence[int], *, weight_bytes: int, tiles_together: int
) -> Cost:
    """Return the cost of one page's tiles, given as their numbers of patches.

    `tiles_together` tiles read the weights together.
    """
    weights = shape.patch_weights + shape.mixed_weights + shape.latent_weights
    flops = 0
    for patches in tiles:
        mixed = patches + shape.latents
        products = (
            shape.patch_weights * patches
            + shape.mixed_weights * mixed
            + shape.latent_weights * shape.latents
        )
        pairs = shape.layers * shape.width * patches**2
        pairs += shape.resampler_layers * shape.resampler_width * shape.latents * mixed
        flops += 2 * products + 4 * pairs
    return Cost(flops, weights * weight_bytes * len(tiles) / tiles_together)
