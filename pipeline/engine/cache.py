"""Keys and values of the rows under way, each row in a slot of its own.

One tensor a layer and kind, (slots, key heads, length, head size), allocated once and written in
place: a step copies nothing. Slots are not paged: rows of one job are alike in length, and a decode
step reads the slots where they lie, without a gather.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.decoder import Attend, DecoderShape
from pipeline.models.devices import index_tensor

_ROUND = 8
"""Attention reads whole multiples of so many positions: fewer shapes, and few read in vain."""


KeysValues = list[tuple[Tensor, Tensor]]
"""Keys and values of rows of one length, a pair a layer, (rows, tokens, key heads, head size)."""


class SlotCache:
    """`slots` rows of up to `length` tokens."""

    def __init__(self, shape: DecoderShape, slots: int, length: int) -> None:
        self.shape = shape
        self.slots = slots
        self.length = length
        size = (slots, shape.key_heads, length, shape.head_size)
        # Zeroed: what lies behind a row's end is multiplied by zero, and must not be NaN.
        self._keys, self._values = (
            [torch.zeros(size, dtype=shape.dtype, device=shape.device) for _ in range(shape.layers)]
            for _ in range(2)
        )

    def lengthened(self, length: int) -> SlotCache:
        """Return a cache of longer slots with the same contents."""
        other = SlotCache(self.shape, self.slots, length)
        for layer in range(self.shape.layers):
            for mine, theirs in zip(self._of(layer), other._of(layer), strict=True):
                theirs[:, :, : self.length] = mine
        return other

    def move(self, slot: int, to: int, length: int) -> None:
        """Copy the first `length` tokens of a slot to another."""
        for kept in (*self._keys, *self._values):
            kept[to, :, :length] = kept[slot, :, :length]

    def clear(self, slot: int) -> None:
        """Forget a row that failed: what its next row does not overwrite must be numbers."""
        for kept in (*self._keys, *self._values):
            kept[slot] = 0

    def place(self, slots: Sequence[int], read: KeysValues) -> None:
        """Copy the keys and values of new rows to the beginnings of slots."""
        rows = self._index(slots)
        for layer, pair in enumerate(read):
            for kept, part in zip(self._of(layer), pair, strict=True):
                kept[rows, :, : part.shape[1]] = part.transpose(1, 2)

    def step(self, slots: Sequence[int], positions: Sequence[Sequence[int]]) -> Attend:
        """Attention of rows under way: `positions` are those of each row's new tokens."""
        counts = [len(row) for row in positions]
        n_rows, most = max(slots) + 1, max(counts)
        longest = max(row[-1] for row in positions) + 1
        if longest > self.length:  # it would write into another row
            raise ValueError(f"a row of {longest} tokens is in a slot of {self.length}")
        span = min(self.length, -(-longest // _ROUND) * _ROUND)
        flat_slots = np.repeat(np.asarray(slots), counts)
        flat_positions = np.concatenate([np.asarray(row) for row in positions])
        columns = np.concatenate([np.arange(count) for count in counts])
        seen = np.zeros((n_rows, most), np.int64)  # a row that is not asked looks at one token
        seen[flat_slots, columns] = flat_positions
        mask = _mask(self.shape, self._index(seen), span)
        at_slots, at_columns = self._index(flat_slots), self._index(columns)
        heads = np.arange(self.shape.key_heads)
        places = (flat_slots[:, None] * len(heads) + heads) * self.length + flat_positions[:, None]
        at_places = self._index(places.ravel())
        straight = most == 1 and list(slots) == list(range(n_rows))

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            self._write(layer, at_places, keys, values)
            if straight:
                asked = queries.unsqueeze(1)
            else:
                asked = queries.new_zeros((n_rows, most, *queries.shape[1:]))
                asked[at_slots, at_columns] = queries
            kept_keys, kept_values = (
                kept[:n_rows, :, :span].transpose(1, 2) for kept in self._of(layer)
            )
            attended = attention(self.shape, asked, kept_keys, kept_values, mask)
            return attended[:, 0] if straight else attended[at_slots, at_columns]

        return attend

    def fixed_step(self, positions: Tensor, span: int) -> Attend:
        """Attention of all slots with as many tokens each, at positions int64 (slots, tokens).

        Of each slot the first `span` positions are read. Nothing depends on what the positions are
        but their own values, so the work can be recorded and run again.
        """
        device, key_heads = positions.device, self.shape.key_heads
        slots = torch.arange(self.slots, device=device)[:, None]
        heads = torch.arange(key_heads, device=device)
        rows = slots[:, :, None] * key_heads + heads
        at_places = (rows * self.length + positions[:, :, None]).flatten()
        mask = _mask(self.shape, positions, span)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            self._write(layer, at_places, keys, values)
            asked = queries.view(*positions.shape, *queries.shape[1:])
            kept_keys, kept_values = (kept[:, :, :span].transpose(1, 2) for kept in self._of(layer))
            return attention(self.shape, asked, kept_keys, kept_values, mask).flatten(0, 1)

        return attend

    def _of(self, layer: int) -> tuple[Tensor, Tensor]:
        return self._keys[layer], self._values[layer]

    def _write(self, layer: int, at_places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put new tokens' keys and values at places in the flattened (slots, key heads, length)."""
        for kept, part in zip(self._of(layer), (keys, values), strict=True):
            size = part.shape[-1]
            kept.view(-1, size).index_copy_(0, at_places, part.reshape(-1, size))

    def _index(self, numbers: Sequence[int] | NDArray[np.int64]) -> Tensor:
        return index_tensor(numbers, self.shape.device)


def _mask(shape: DecoderShape, positions: Tensor, span: int) -> Tensor:
    """What tokens at `positions`, int64 (rows, tokens), see of the first `span`, for `attention`.

    0 or minus infinity, (rows, 1, groups * tokens, span).
    """
    places, own = torch.arange(span, device=positions.device), positions.unsqueeze(-1)
    hidden = places > own
    if shape.window is not None and span > shape.window:
        hidden |= places <= own - shape.window
    mask = torch.zeros(hidden.shape, dtype=shape.dtype, device=positions.device)
    return mask.masked_fill_(hidden, -torch.inf).repeat(1, shape.groups, 1).unsqueeze(1)


def attention(
    shape: DecoderShape, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Tensor:
    """(rows, tokens, heads, head size) all, and out; without a mask, causal."""
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    if mask is None:
        attended = F.scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, is_causal=True, enable_gqa=shape.groups > 1
        )
        return attended.transpose(1, 2)
    # Heads that share keys ask one behind another: a GPU's kernels that know of sharing know no
    # masks, and the keys are read once for all of them.
    rows, tokens = queries.shape[:2]
    parted = rows, shape.key_heads, shape.groups, tokens, shape.head_size
    asked = queries.view(rows, tokens, *parted[1:3], -1).permute(0, 2, 3, 1, 4)
    attended = F.scaled_dot_product_attention(
        asked.reshape(rows, shape.key_heads, -1, shape.head_size), keys, values, attn_mask=mask
    )
    return attended.view(parted).permute(0, 3, 1, 2, 4).reshape(queries.shape)


def reading(
    shape: DecoderShape, n_rows: int, length: int, prefix: KeysValues
) -> tuple[Attend, KeysValues]:
    """Return the attention of new rows of `length` tokens each behind the prefix, one row or none.

    The list beside it fills with the rows' keys and values, the prefix's among them.
    """
    start = int(prefix[0][0].shape[1]) if prefix else 0
    end = start + length
    mask = None
    if start or (shape.window is not None and end > shape.window):
        mask = _mask(shape, torch.arange(start, end, device=shape.device).unsqueeze(0), end)
    read: KeysValues = []

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries, keys, values = (
            part.reshape(n_rows, length, *part.shape[1:]) for part in (queries, keys, values)
        )
        if prefix:
            keys, values = (
                torch.cat((common.expand(n_rows, *common.shape[1:]), part), dim=1)
                for common, part in zip(prefix[layer], (keys, values), strict=True)
            )
        read.append((keys, values))
        return attention(shape, queries, keys, values, mask).flatten(0, 1)

    return attend, read
