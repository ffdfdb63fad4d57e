"""Muon: momentum whose matrices are made orthogonal before each step.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. torch.optim.Muon does its iterations
in bfloat16, which a CPU without such instructions computes several times slower than float32, and
one matrix at a time; this one keeps to the given type and stacks matrices of one shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """For matrices only, float (rows, columns); weight decay is decoupled.

    The step's size is `lr * sqrt(max(1, rows / columns))` times an orthogonal matrix, as in
    torch.optim.Muon with its original adjustment.
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self._precision = precision
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the weights. Parameters without a gradient stay."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            shapes: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    shapes.setdefault(weight.shape, []).append(weight)
            for weights in shapes.values():
                self._step(weights, group)
        return loss

    def _step(self, weights: list[torch.nn.Parameter], group: dict[str, Any]) -> None:
        momentum, rate = group["momentum"], group["lr"]
        directions = []
        for weight in weights:
            gradient = weight.grad
            assert gradient is not None  # noqa: S101 - `step` has left out the others
            if "momentum" not in self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
            average = self.state[weight]["momentum"]
            average.lerp_(gradient, 1 - momentum)
            directions.append(gradient.lerp(average, momentum))
        rows, columns = weights[0].shape
        size = rate * max(1.0, rows / columns) ** 0.5
        steps = self._orthogonal(torch.stack(directions).to(self._precision))
        for weight, step in zip(weights, steps, strict=True):
            weight.mul_(1 - rate * group["weight_decay"]).add_(step.to(weight.dtype), alpha=-size)

    def _orthogonal(self, directions: torch.Tensor) -> torch.Tensor:
        """Divide the work among the ranks, which all have the same directions."""
        if not dist.is_initialized():
            return orthogonal(directions)
        own = slice(dist.get_rank(), None, dist.get_world_size())
        steps = torch.zeros_like(directions)
        if len(directions[own]):
            steps[own] = orthogonal(directions[own])
        dist.all_reduce(steps)
        return steps


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """Return the nearest orthogonal matrices, roughly: singular values between 0.7 and 1.2.

    Takes float (n, rows, columns); the quintic Newton-Schulz iteration of the source above.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: torch.Tensor = x if matrices.shape[1] <= matrices.shape[2] else x.mT
    return result
