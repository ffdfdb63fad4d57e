"""The losses that teach the reader, through the stock model's own forward.

Three small heads and two pointers guide the training and are thrown away with this class:

- the *eye*: which characters each patch shows, from the vision tower's output (Linear);
- the *place*: each patch's row and column, from the same, so that position survives in it;
- the *memory*: the eye's question, asked of the resampler's latents, one latent a patch;
- the *pointers*: some attention heads of two decoder layers are told where to look, at the patch
  of the character last written and at that of the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Idefics2ForConditionalGeneration
from transformers.models.mistral.modeling_mistral import apply_rotary_pos_emb

from pipeline.pretrain.collate import IGNORED, Batch, Tokens
from pipeline.pretrain.job import Architecture, LossWeights
from pipeline.pretrain.patches import CLASSES, SLOTS
from pipeline.pretrain.tracing import NOWHERE

_POINTING_HEADS = 2
_BLANK_WEIGHT, _BLANK_SHARE = 0.25, 0.25


@dataclass(frozen=True, slots=True)
class Lesson:
    """One batch's loss to minimise, and what it is made of: losses and shares of right answers."""

    loss: Tensor
    parts: dict[str, Tensor]


class Coach(nn.Module):
    """The model and the heads of its training; `forward` gives a `Lesson`."""

    def __init__(self, model: Idefics2ForConditionalGeneration, shape: Architecture) -> None:
        super().__init__()
        self.model = model
        self.columns, self.rows = shape.grid
        self.eye = nn.Linear(shape.vision.width, SLOTS * CLASSES)
        self.place = nn.Linear(shape.vision.width, self.rows + self.columns)
        self.memory = nn.Linear(shape.text.width, SLOTS * CLASSES)
        layers = model.model.text_model.layers
        self._pointers = (
            _Pointer(layers[1 if len(layers) > 2 else 0].self_attn),
            _Pointer(layers[-1].self_attn),
        )

    def forward(self, batch: Batch, weights: LossWeights) -> Lesson:
        """Return the weighted sum of the losses whose weight is not zero."""
        inner, asked = self.model.model, _Asked.of(batch.characters)
        losses: dict[str, Tensor] = {}
        rights: dict[str, Tensor] = {}
        if not (weights.memory or weights.answer):
            seen = vision_output(inner, batch.pixels)
        else:
            features = inner.get_image_features(batch.pixels, return_dict=True)
            seen = features.last_hidden_state
            latents = torch.stack(features.pooler_output)
            losses["memory"], rights["memory"] = _characters(self.memory, latents, asked)
        losses["eye"], rights["eye"] = _characters(self.eye, seen, asked)
        losses["place"] = self._place_loss(seen)
        if batch.tokens is not None and weights.answer:
            self._answer(batch.tokens, features, losses, rights)
        total = sum(getattr(weights, name) * loss for name, loss in losses.items())
        parts = losses | {f"{name}_right": share for name, share in rights.items()}
        return Lesson(torch.as_tensor(total), {k: v.detach() for k, v in parts.items()})

    def _place_loss(self, seen: Tensor) -> Tensor:
        logits = self.place(seen).float().flatten(0, 1)
        patch = torch.arange(self.rows * self.columns, device=seen.device).repeat(len(seen))
        row = functional.cross_entropy(logits[:, : self.rows], patch // self.columns)
        return row + functional.cross_entropy(logits[:, self.rows :], patch % self.columns)

    def _answer(
        self, tokens: Tokens, features: Any, losses: dict[str, Tensor], rights: dict[str, Tensor]
    ) -> None:
        """Add the answer's loss, that of the next token, and the pointers'."""
        inner, length = self.model.model, tokens.ids.shape[1] - tokens.start
        try:
            for pointer in self._pointers:
                pointer.watch()
            hidden = inner(
                input_ids=tokens.ids, mm_encoder_outputs={"image": features}, use_cache=False
            ).last_hidden_state
            cos_sin = inner.text_model.rotary_emb(
                hidden, torch.arange(hidden.shape[1], device=hidden.device)[None]
            )
            image = inner.config.image_token_id
            first_image = int((tokens.ids[0] == image).int().argmax())
            # Position t writes token t + 1, having read token t.
            for name, pointer, shift in (
                ("pointer_last", self._pointers[0], 0),
                ("pointer_next", self._pointers[1], 1),
            ):
                until = tokens.ids.shape[1] - 1 + shift
                targets = tokens.patches[:, tokens.start - 1 + shift : until]
                losses[name], rights[name] = pointer.loss(
                    cos_sin, targets, tokens.start - 1, first_image
                )
        finally:
            for pointer in self._pointers:
                pointer.forget()
        logits = self.model.lm_head(hidden[:, -length - 1 : -1]).float().flatten(0, 1)
        labels = tokens.labels[:, tokens.start :].flatten()
        losses["answer"] = functional.cross_entropy(logits, labels, ignore_index=IGNORED)
        rights["answer"] = _share_right(logits, labels, labels != IGNORED)


class _Pointer:
    """Watches the first heads of an attention layer, to tell them where to look."""

    def __init__(self, attention: Any) -> None:
        self._attention = attention
        self._hooks: list[Any] = []
        self._projected: dict[str, Tensor] = {}

    def watch(self) -> None:
        for name in ("q_proj", "k_proj"):

            def keep(_: nn.Module, __: Any, output: Tensor, name: str = name) -> None:
                self._projected[name] = output

            module = getattr(self._attention, name)
            self._hooks.append(module.register_forward_hook(keep))

    def forget(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._projected.clear()

    def loss(
        self, cos_sin: Sequence[Tensor], targets: Tensor, start: int, first_image: int
    ) -> tuple[Tensor, Tensor]:
        """Return -log of the attention on each target's latent, and the share it is largest for.

        `targets` are patches int64 (batch, n), for the queries at positions `start` onwards.
        """
        size = self._attention.head_dim
        query, key = (_heads(self._projected[name], size) for name in ("q_proj", "k_proj"))
        query, key = apply_rotary_pos_emb(query, key, *cos_sin)
        query = query[:, :, start : start + targets.shape[1]]
        scores = (query @ key.mT).float() * self._attention.scaling
        position = torch.arange(key.shape[2], device=key.device)
        later = position[None] > position[start : start + targets.shape[1], None]
        chances = scores.masked_fill(later, -torch.inf).log_softmax(-1)
        told = (targets != NOWHERE)[:, None].expand(chances.shape[:3])
        spots = (targets.clamp(min=0) + first_image)[:, None].expand(chances.shape[:3])
        at_target = chances.gather(3, spots[..., None])[..., 0]
        count = told.sum().clamp(min=1)
        right = (chances.detach().argmax(-1) == spots) & told
        return -torch.where(told, at_target, 0.0).sum() / count, right.sum() / count


def _heads(projected: Tensor, size: int) -> Tensor:
    """Return the pointing heads, float (batch, heads, length, size)."""
    return projected.view(*projected.shape[:2], -1, size)[:, :, :_POINTING_HEADS].transpose(1, 2)


def vision_output(inner: Any, pixels: Tensor) -> Tensor:
    """Return the vision tower's output, float (batch, patches, width), without the resampler."""
    images = pixels.flatten(0, 1)
    patch = inner.config.vision_config.patch_size
    mask = torch.ones(
        (len(images), images.shape[2] // patch, images.shape[3] // patch),
        dtype=torch.bool,
        device=images.device,
    )
    output: Tensor = inner.vision_model(
        pixel_values=images, patch_attention_mask=mask
    ).last_hidden_state
    return output


@dataclass(frozen=True, slots=True)
class _Asked:
    """The patches that a head is asked about: all that show a character, and some blank ones.

    `patches` are indices into the batch's patches, int64 (n,); `characters` int64 (n, slots).
    """

    patches: Tensor
    characters: Tensor

    @classmethod
    def of(cls, characters: Tensor) -> _Asked:
        shown = characters.flatten(0, 1)
        wanted = (shown > 0).any(1) | (torch.rand(len(shown), device=shown.device) < _BLANK_SHARE)
        return cls(wanted.nonzero()[:, 0], shown[wanted])


def _characters(head: nn.Module, output: Tensor, asked: _Asked) -> tuple[Tensor, Tensor]:
    """Return cross-entropy over the slots, blank ones counting less, and F1 of the characters."""
    logits = head(output.flatten(0, 1)[asked.patches]).float().view(-1, CLASSES)
    labels = asked.characters.flatten()
    weights = torch.where(labels > 0, 1.0, _BLANK_WEIGHT)
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (losses * weights).sum() / weights.sum(), _found(logits, labels)


@torch.no_grad()
def _found(logits: Tensor, labels: Tensor) -> Tensor:
    told = logits.argmax(-1)
    right = ((told == labels) & (labels > 0)).sum()
    return 2 * right / ((told > 0).sum() + (labels > 0).sum()).clamp(min=1)


@torch.no_grad()
def _share_right(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
    right = (logits.argmax(-1) == labels) & counted
    return right.sum() / counted.sum().clamp(min=1)
