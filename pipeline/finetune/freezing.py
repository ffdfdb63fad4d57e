"""Which weights learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.errors import JobError
from pipeline.finetune.job import FinetuneJob
from pipeline.models.image_text import ImageTextModel

_TYPES = {"LayerNorm": nn.LayerNorm, "Linear": nn.Linear, "Embedding": nn.Embedding}
"""Module types as IDEFICS-1's config names them."""


@dataclass(frozen=True, slots=True)
class Part:
    """Modules that are frozen together, but for what `except_` names."""

    prefixes: tuple[str, ...]
    except_: tuple[str, ...]

    def freezes(self, module: nn.Module, name: str) -> bool:
        """Return True if a parameter `name` of `module` does not learn."""
        inside = any(name == p or name.startswith(f"{p}.") for p in self.prefixes)
        return inside and not any(_names(one, module, name) for one in self.except_)


def frozen_parts(job: FinetuneJob, model: ImageTextModel) -> list[Part]:
    """Return what the job freezes, and else the checkpoint's config."""
    config, freeze = model.weights.config, job.freeze
    # IDEFICS-1 was trained with most of it frozen, and its config says so.
    text = getattr(config, "freeze_text_layers", False)
    vision = getattr(config, "freeze_vision_layers", job.method == "lora")
    parts = []
    for asked, default, prefixes, kind in (
        (freeze.text, text, model.text_parts, "text"),
        (freeze.vision, vision, model.vision_parts, "vision"),
    ):
        if default if asked is None else asked:
            named = getattr(config, f"freeze_{kind}_module_exceptions", ())
            parts.append(Part(prefixes, tuple(named) if freeze.except_ is None else freeze.except_))
    return parts


def freeze(job: FinetuneJob, model: ImageTextModel) -> None:
    """Let the weights learn that method full trains, and no others. Raises JobError if none."""
    parts = frozen_parts(job, model)
    for name, parameter, module in _parameters(model.weights):
        parameter.requires_grad_(not any(part.freezes(module, name) for part in parts))
    if getattr(model.weights.config, "freeze_lm_head", False) and job.freeze.text is None:
        model.weights.lm_head.weight.requires_grad_(False)  # its additional tokens' are apart
    if not any(parameter.requires_grad for parameter in model.weights.parameters()):
        raise JobError("freeze: nothing is left to learn; freeze less")


def adapt(job: FinetuneJob, model: ImageTextModel) -> Any:
    """Put adapters beside the weights, and freeze these; return the model of peft.

    Raises JobError if there is no layer to put one beside.
    """
    from peft import LoraConfig, get_peft_model

    model.weights.requires_grad_(False)
    config = LoraConfig(
        r=job.lora.rank,
        lora_alpha=job.lora.alpha,
        lora_dropout=job.lora.dropout,
        target_modules=_targets(job, model),
        bias="none",
    )
    with warnings.catch_warnings():
        # peft asks for what transformers has given another name since.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return get_peft_model(model.weights, config)


def remember_less(weights: Any) -> None:
    """Compute activations twice in place of holding them; before `adapt`."""
    # Later versions of transformers have it under the first name, and warn of the other.
    enable = getattr(weights, "activation_checkpointing_enable", None)
    (enable or weights.gradient_checkpointing_enable)({"use_reentrant": False})


def _targets(job: FinetuneJob, model: ImageTextModel) -> list[str]:
    parts = frozen_parts(job, model)
    ends, head = job.lora.targets, set(model.weights.get_output_embeddings().modules())
    linear = [
        name
        for name, module in model.weights.named_modules()
        if isinstance(module, nn.Linear)
        and module not in head
        and not any(part.freezes(module, f"{name}.weight") for part in parts)
    ]
    found = [n for n in linear if ends is None or any(f".{n}".endswith(f".{e}") for e in ends)]
    if not found:
        known = sorted({name.rpartition(".")[2] for name in linear})
        mend = f"there are {', '.join(known)}" if known else "freeze less"
        raise JobError(f"lora.targets: no layer that learns is called so; {mend}")
    return found


def _parameters(weights: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    for prefix, module in weights.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield (f"{prefix}.{name}" if prefix else name), parameter, module


def _names(exception: str, module: nn.Module, name: str) -> bool:
    kind = _TYPES.get(exception)
    return exception in name if kind is None else isinstance(module, kind)


def count(parameters: Sequence[nn.Parameter]) -> tuple[int, int]:
    """Return how many numbers learn, and how many there are."""
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)
