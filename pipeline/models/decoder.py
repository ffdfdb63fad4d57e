"""The text decoder of the Llama and Mistral kind, over rows of any lengths at once.

Runs the weights of a stock transformers model with fewer and larger operations than its own
modules: tokens of all rows lie behind one another, (tokens, width), so that nothing is padded, and
attention is the caller's (`Attend`), who keeps the keys and values.

Touvron et al., arXiv:2302.13971; Jiang et al., arXiv:2310.06825; rotary positions: Su et al.,
arXiv:2104.09864.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries, keys, values) -> attended, like the queries.

Queries are (tokens, heads, head size), keys and values (tokens, key heads, head size), all turned
to their positions.
"""


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """What a cache of keys and values must know of a decoder."""

    layers: int
    heads: int
    key_heads: int
    head_size: int
    width: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_a_token(self) -> int:
        """Bytes of keys and values that one token leaves behind."""
        return 2 * self.layers * self.key_heads * self.head_size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class _Layer:
    before_attention: Tensor
    queries_keys_values: _Joined
    attended: Callable[[Tensor], Tensor]
    before_feed_forward: Tensor
    gate_up: _Joined
    down: Callable[[Tensor], Tensor]


class Decoder:
    """`MistralModel` or `LlamaModel`, and its output head.

    Plain linear layers that read the same input are joined into one; the stock model then holds
    views of the joined weights, so that they are not held twice. Quantized and adapted layers are
    called as they are.

    Raises
    ------
    ValueError
        If the model has what this decoder does not do: a sliding window, biases of its norms, an
        activation other than SiLU, rotary positions other than the default kind.
    """

    def __init__(self, text_model: Any, head: Any) -> None:
        config = text_model.config
        _check(config)
        self._eps = float(config.rms_norm_eps)
        self._head = head
        self._norm = text_model.norm.weight
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
        )
        self._frequencies = text_model.rotary_emb.inv_freq.to(weight.device, torch.float32)
        self._layers = [_layer(layer) for layer in text_model.layers]

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
        turn = self._turning(positions)
        heads, key_heads = self.shape.heads, self.shape.key_heads
        last = len(self._layers) - 1
        for number, layer in enumerate(self._layers):
            inside = self._rms(hidden, layer.before_attention)
            mixed = layer.queries_keys_values(inside).view(len(inside), -1, self.shape.head_size)
            turned = _turned(mixed[:, : heads + key_heads], *turn)
            queries, keys, values = turned[:, :heads], turned[:, heads:], mixed[:, -key_heads:]
            attended = attend(number, queries, keys, values).flatten(1)
            if number == last and wanted is not None:
                attended, hidden = attended[wanted], hidden[wanted]
            hidden = hidden + layer.attended(attended)
            inside = self._rms(hidden, layer.before_feed_forward)
            gate, up = layer.gate_up(inside).chunk(2, dim=-1)
            hidden = hidden + layer.down(F.silu(gate) * up)
        return self._rms(hidden, self._norm)

    def logits(self, hidden: Tensor) -> Tensor:
        """(tokens, width) -> float32 (tokens, vocabulary)."""
        scores: Tensor = self._head(hidden)
        return scores.float()

    def _rms(self, hidden: Tensor, weight: Tensor) -> Tensor:
        if hidden.dtype == torch.float32:
            return F.rms_norm(hidden, weight.shape, weight, self._eps)
        # As the stock norm rounds: to the working type before the weight is applied.
        normal = F.rms_norm(hidden.float(), weight.shape, None, self._eps)
        return weight * normal.to(hidden.dtype)

    def _turning(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines (tokens, 1, 2, head size / 2) of the positions' angles."""
        angles = positions[:, None].float() * self._frequencies
        cosines, sines = angles.cos(), angles.sin()
        both = torch.stack((cosines, cosines), 1), torch.stack((-sines, sines), 1)
        dtype = self.shape.dtype
        return both[0][:, None].to(dtype), both[1][:, None].to(dtype)


class _Joined:
    """Linear layers that read the same input, as one."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = list(layers)
        self._weight: Tensor | None = None
        if all(type(layer) is torch.nn.Linear and layer.bias is None for layer in layers):
            joined = torch.cat([layer.weight.detach() for layer in layers])
            at = 0
            for layer in layers:
                part = joined[at : at + layer.out_features]
                layer.weight = torch.nn.Parameter(part, requires_grad=False)
                at += layer.out_features
            self._weight = joined

    def __call__(self, hidden: Tensor) -> Tensor:
        if self._weight is not None:
            return F.linear(hidden, self._weight)
        return torch.cat([layer(hidden) for layer in self._layers], dim=-1)


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn (tokens, heads, head size) by the positions' angles, halves against each other."""
    halves = heads.reshape(*heads.shape[:-1], 2, heads.shape[-1] // 2)
    return torch.addcmul(halves * cosines, halves.flip(2), sines).flatten(2)


def _layer(layer: Any) -> _Layer:
    attention, feed_forward = layer.self_attn, layer.mlp
    return _Layer(
        before_attention=layer.input_layernorm.weight,
        queries_keys_values=_Joined((attention.q_proj, attention.k_proj, attention.v_proj)),
        attended=attention.o_proj,
        before_feed_forward=layer.post_attention_layernorm.weight,
        gate_up=_Joined((feed_forward.gate_proj, feed_forward.up_proj)),
        down=feed_forward.down_proj,
    )


def _check(config: Any) -> None:
    if getattr(config, "sliding_window", None):
        raise ValueError("its text model attends within a sliding window")
    if config.hidden_act not in ("silu", "swish"):
        raise ValueError(f"its text model's activation is {config.hidden_act}")
    if (config.rope_parameters or {}).get("rope_type", "default") != "default":
        raise ValueError("its text model scales its rotary positions")
