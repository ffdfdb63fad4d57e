"""Which weights a stage trains, with which optimiser, at which rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from pipeline.pretrain.coach import Coach
from pipeline.pretrain.job import LossWeights, Rates
from pipeline.pretrain.muon import Muon

_CLIP = 1.0
_RESAMPLER = "perceiver_resampler.layers.0.self_attn"
_TEXT = "text."
_NO_MATRICES = ("embed", "lm_head", "latents", "eye.", "place.", "memory.")


class Optimizers:
    """Muon for the layers' matrices and AdamW for the rest, over one flat gradient.

    Gradients are views of `flat`, so that processes can add theirs up in one call.
    """

    def __init__(
        self, coach: Coach, weights: LossWeights, rates: Rates, routed: bool, precision: torch.dtype
    ) -> None:
        named = trained(coach, weights)
        parameters = [parameter for _, parameter in named]
        sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.zeros(sum(sizes), device=parameters[0].device)
        for parameter, part in zip(parameters, torch.split(self.flat, sizes), strict=True):
            parameter.grad = part.view_as(parameter)
        seeing = [(name, p) for name, p in named if not name.startswith(_TEXT)]
        writing = [(name, p) for name, p in named if name.startswith(_TEXT)]
        self._writing = _optimizers(writing, rates, routed, precision) if writing else []
        self.all = [*_optimizers(seeing, rates, routed, precision), *self._writing]
        self._full = [[group["lr"] for group in o.param_groups] for o in self.all]

    def step(self, factor: float, *, wrote: bool) -> Tensor:
        """Clip the gradient, move the weights at `factor` of the full rates, clear the gradient.

        Those of the text model stay where they are unless the batch had answers: Muon's steps are
        as long for a gradient of nothing, in the direction of its memory, as for any.

        Returns the gradient's norm before clipping. If that is not finite, the step is left out.
        """
        norm: Tensor = self.flat.norm()
        if not norm.isfinite():
            self.flat.zero_()
            return norm
        self.flat.mul_((_CLIP / (norm + 1e-6)).clamp(max=1.0))
        for optimizer, full in zip(self.all, self._full, strict=True):
            if optimizer in self._writing and not wrote:
                continue
            for group, rate in zip(optimizer.param_groups, full, strict=True):
                group["lr"] = rate * factor
            optimizer.step()
        self.flat.zero_()
        return norm

    def load(self, states: Sequence[dict[str, Any]]) -> None:
        """Take over what `state_dict` of each gave; rates and decay stay those of the job."""
        for optimizer, state in zip(self.all, states, strict=True):
            settings = [
                {key: value for key, value in group.items() if key != "params"}
                for group in optimizer.param_groups
            ]
            optimizer.load_state_dict(state)
            for group, kept in zip(optimizer.param_groups, settings, strict=True):
                group.update(kept)


def rate_factor(steps: int, progress: float, rates: Rates) -> float:
    """Return the share of the full rate, `steps` into a stage and `progress` (0-1) through all."""
    warm = min(1.0, (steps + 1) / max(1, rates.warm_up))
    left = 1 - progress
    return warm * (1.0 if left >= rates.decay else max(0.02, left / rates.decay))


def trained(coach: Coach, weights: LossWeights) -> Sequence[tuple[str, Parameter]]:
    """Return the parameters that a stage's losses reach."""
    inner = coach.model.model
    parts: dict[str, nn.Module] = {
        "vision.": inner.vision_model,
        "eye.": coach.eye,
        "place.": coach.place,
    }
    if weights.memory or weights.answer:
        parts |= {"connector.": inner.connector, "memory.": coach.memory}
    if weights.answer:
        parts |= {_TEXT: inner.text_model}  # whose embeddings are the head's weights too
    return [
        (prefix + name, parameter)
        for prefix, part in parts.items()
        for name, parameter in part.named_parameters()
    ]


def _optimizers(
    named: Sequence[tuple[str, Parameter]], rates: Rates, routed: bool, precision: torch.dtype
) -> list[torch.optim.Optimizer]:
    matrices, large, small, aim = _groups(named, routed)
    groups = [
        {"params": large, "weight_decay": rates.weight_decay},
        {"params": small, "weight_decay": 0.0},
        {"params": aim, "weight_decay": 0.0, "lr": rates.routing},
    ]
    groups = [group for group in groups if group["params"]]
    return [
        torch.optim.AdamW(groups, lr=rates.others, betas=(0.9, 0.98), fused=True),
        Muon(matrices, rates.matrices, 0.95, rates.weight_decay, precision),
    ]


def _groups(
    named: Sequence[tuple[str, Parameter]], routed: bool
) -> tuple[list[Parameter], list[Parameter], list[Parameter], list[Parameter]]:
    """Return Muon's matrices; AdamW's large and small parameters; and the routed latents' aim."""
    matrices: list[Parameter] = []
    large: list[Parameter] = []
    small: list[Parameter] = []
    aim: list[Parameter] = []
    for name, parameter in named:
        asks = _RESAMPLER in name and ("q_proj" in name or "k_proj" in name)
        if routed and (asks or name.endswith("perceiver_resampler.latents")):
            aim.append(parameter)
        elif parameter.ndim == 2 and not any(part in name for part in _NO_MATRICES):
            matrices.append(parameter)
        else:
            (large if parameter.ndim > 1 else small).append(parameter)
    return matrices, large, small, aim
