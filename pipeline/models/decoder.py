"""The text decoder of the Llama and Mistral kind, over rows of any lengths at once.

Runs the weights of a stock transformers model with fewer and larger operations than its own
modules: tokens of all rows lie behind one another, (tokens, width), so that nothing is padded, and
attention is the caller's (`Attend`), who keeps the keys and values.

Touvron et al., arXiv:2302.13971; Jiang et al., arXiv:2310.06825; rotary positions: Su et al.,
arXiv:2104.09864.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.context import context_of

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries, keys, values) -> attended, like the queries.

Queries are (tokens, heads, head size), keys and values (tokens, key heads, head size), all turned
to their positions.
"""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """What a cache of keys and values must know of a decoder.

    A token attends to itself and the `window` - 1 before it, to all before it if that is None.
    Prompt and answer have `context` tokens at most, None if there is no bound.
    """

    layers: int
    heads: int
    key_heads: int
    head_size: int
    width: int
    dtype: torch.dtype
    device: torch.device
    window: int | None = None
    context: int | None = None

    @property
    def groups(self) -> int:
        """How many heads share the keys and values of one (Ainslie et al., arXiv:2305.13245)."""
        return self.heads // self.key_heads

    @property
    def bytes_a_token(self) -> int:
        """Bytes of keys and values that one token leaves behind."""
        return 2 * self.layers * self.key_heads * self.head_size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Layer:
    before_attention: _Norm
    queries_keys_values: _Linear
    attended: _Linear
    before_feed_forward: _Norm
    gate_up: _Linear
    down: _Linear


_FIXED_ROPES = {"default", "linear", "llama3"}
"""Rotary positions whose frequencies are settled when the model is built, whatever they are."""


class UnknownDecoder(ValueError):
    """A text model that `Decoder` would not run right."""


class Decoder:
    """`MistralModel` or `LlamaModel`, and its output head.

    Plain linear layers that read the same input are joined into one; the stock model then holds
    views of the joined weights, so that they are not held twice. Quantized and adapted layers are
    called as they are.

    Raises
    ------
    UnknownDecoder
        If the model has what this decoder does not do: an activation other than SiLU, rotary
        positions whose frequencies follow the length, or that are scaled themselves.
    """

    def __init__(self, text_model: Any, head: Any) -> None:
        config = text_model.config
        _check(config)
        eps = float(config.rms_norm_eps)
        self._head = head
        self._norm = _Norm(text_model.norm.weight, eps)
        self._embedding = text_model.embed_tokens
        heads, key_heads = config.num_attention_heads, config.num_key_value_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // heads
        weight = text_model.embed_tokens.weight
        self.shape = DecoderShape(
            config.num_hidden_layers,
            heads,
            key_heads,
            size,
            config.hidden_size,
            weight.dtype,
            weight.device,
            getattr(config, "sliding_window", None),
            context_of(config),
        )
        self._frequencies = text_model.rotary_emb.inv_freq.to(weight.device, torch.float32)
        # Of each head's halves the other one, for the turning.
        turned = torch.arange((heads + key_heads) * size).view(-1, 2, size // 2)
        self._crossed = turned.flip(1).flatten().to(weight.device)
        self._layers = [_layer(layer, eps) for layer in text_model.layers]

    def embed(self, ids: Tensor) -> Tensor:
        """(tokens,) int64 -> (tokens, width)."""
        embedded: Tensor = self._embedding(ids)
        return embedded

    def forward(
        self, embedded: Tensor, positions: Tensor, attend: Attend, wanted: Tensor | None = None
    ) -> Tensor:
        """Return the last layer's normalised output (tokens, width).

        `positions` is (tokens,) int64. With `wanted` (n,) int64 only those tokens' output is
        returned, (n, width), and the others are spared what only their own output needs.
        """
        hidden = embedded
        cosines, sines = self._turning(positions)
        heads = self.shape.heads
        turned_size = cosines.shape[1]
        last = len(self._layers) - 1
        for number, layer in enumerate(self._layers):
            mixed = layer.queries_keys_values(layer.before_attention(hidden))
            straight, values = mixed[:, :turned_size], self._by_head(mixed[:, turned_size:])
            crossed = mixed.index_select(1, self._crossed)
            turned = self._by_head(torch.addcmul(straight * cosines, crossed, sines))
            attended = attend(number, turned[:, :heads], turned[:, heads:], values).flatten(1)
            if number == last and wanted is not None:
                attended, hidden = attended[wanted], hidden[wanted]
            hidden = hidden + layer.attended(attended)
            gate, up = layer.gate_up(layer.before_feed_forward(hidden)).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate).mul_(up))
        return self._norm(hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, width) -> float32 (tokens, vocabulary)."""
        scores: Tensor = self._head(hidden)
        return scores.float()

    def _by_head(self, mixed: Tensor) -> Tensor:
        return mixed.view(len(mixed), -1, self.shape.head_size)

    def _turning(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines of the positions' angles, (tokens, turned heads * head size)."""
        angles = positions[:, None].float() * self._frequencies
        cosines, sines = angles.cos(), angles.sin()
        turned = self.shape.heads + self.shape.key_heads
        return (
            torch.cat((cosines, cosines), 1).to(self.shape.dtype).repeat(1, turned),
            torch.cat((-sines, sines), 1).to(self.shape.dtype).repeat(1, turned),
        )


class _Norm:
    """Division by the root of the mean square (Zhang and Sennrich, arXiv:1910.07467)."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        size = weight.numel()
        self._weight, self._eps = weight, eps
        self._scaled = weight * size**0.5
        self._floor = torch.tensor((size * eps) ** 0.5, device=weight.device)

    def __call__(self, hidden: Tensor) -> Tensor:
        if hidden.dtype == torch.float32:
            # root(mean square + eps) = hypot(length, root(n eps)) / root(n), in few operations.
            length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
            return hidden.div(torch.hypot(length, self._floor)).mul_(self._scaled)
        # As the stock norm rounds: to the working type before the weight is applied.
        normal = F.rms_norm(hidden.float(), self._weight.shape, None, self._eps)
        return self._weight * normal.to(hidden.dtype)


class _Linear:
    """Linear layers that read the same input, as one."""

    def __init__(self, *layers: Any) -> None:
        self._layers = layers
        self._weight: Tensor | None = None
        if all(type(layer) is torch.nn.Linear and layer.bias is None for layer in layers):
            joined = torch.cat([layer.weight.detach() for layer in layers]).t()
            if joined.device.type == "cpu":
                joined = joined.contiguous()  # quicker there for the few tokens of a step
            self._weight = joined
            at = 0
            for layer in layers:
                part = joined[:, at : at + layer.out_features].t()
                layer.weight = torch.nn.Parameter(part, requires_grad=False)
                at += layer.out_features

    def __call__(self, hidden: Tensor) -> Tensor:
        if self._weight is not None:
            return torch.mm(hidden, self._weight)
        return torch.cat([layer(hidden) for layer in self._layers], dim=-1)


def _layer(layer: Any, eps: float) -> _Layer:
    attention, feed_forward = layer.self_attn, layer.mlp
    return _Layer(
        before_attention=_Norm(layer.input_layernorm.weight, eps),
        queries_keys_values=_Linear(attention.q_proj, attention.k_proj, attention.v_proj),
        attended=_Linear(attention.o_proj),
        before_feed_forward=_Norm(layer.post_attention_layernorm.weight, eps),
        gate_up=_Linear(feed_forward.gate_proj, feed_forward.up_proj),
        down=_Linear(feed_forward.down_proj),
    )


def _check(config: Any) -> None:
    if config.hidden_act not in ("silu", "swish"):
        raise UnknownDecoder(f"its text model's activation is {config.hidden_act}")
    if (kind := (config.rope_parameters or {}).get("rope_type", "default")) not in _FIXED_ROPES:
        raise UnknownDecoder(f"its text model's rotary positions are of the kind {kind}")
