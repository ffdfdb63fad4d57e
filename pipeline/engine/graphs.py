"""Decode steps of fixed shapes, so that a GPU replays one recording instead of launching each part.

Off by default: recording has not run on a GPU yet. Without a GPU the same steps run unrecorded.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.engine.cache import SlotCache
from pipeline.models.decoder import Decoder

_WIDTHS = (1, 5)
_SPAN = 256


class FixedSteps:
    """Steps over all slots of a cache, a few widths and spans of them, each recorded once.

    What a row lacks of a step's width is filled with tokens at the slot's last position, which no
    row may use.
    """

    def __init__(self, decoder: Decoder, cache: SlotCache) -> None:
        self._decoder = decoder
        self._cache = cache
        self._steps: dict[tuple[int, int], _FixedStep] = {}

    def fits(self, tokens: Sequence[Sequence[int]]) -> bool:
        """Whether no row asks for more tokens than a step holds."""
        return max(map(len, tokens)) <= _WIDTHS[-1]

    def run(
        self, slots: Sequence[int], tokens: Sequence[Sequence[int]], starts: Sequence[int]
    ) -> Tensor:
        """Return the decoder's output (tokens, width) of the rows' tokens, one behind another.

        Row `i` in slot `slots[i]` has its first token at position `starts[i]`.
        """
        counts = [len(asked) for asked in tokens]
        width = next(width for width in _WIDTHS if width >= max(counts))
        reach = max(start + count for start, count in zip(starts, counts, strict=True))
        span = min(self._cache.length, -(-reach // _SPAN) * _SPAN)
        ids = np.zeros((self._cache.slots, width), np.int64)
        positions = np.full((self._cache.slots, width), self._cache.length - 1, np.int64)
        for slot, asked, start in zip(slots, tokens, starts, strict=True):
            ids[slot, : len(asked)] = asked
            positions[slot, : len(asked)] = np.arange(start, start + len(asked))
        if (width, span) not in self._steps:
            self._steps[width, span] = _FixedStep(self._decoder, self._cache, width, span)
        hidden = self._steps[width, span].run(torch.from_numpy(ids), torch.from_numpy(positions))
        places = [
            slot * width + place
            for slot, count in zip(slots, counts, strict=True)
            for place in range(count)
        ]
        return hidden[torch.tensor(places).to(hidden.device, non_blocking=True)]


class _FixedStep:
    """One width (tokens a slot) and span (positions that attention reads)."""

    def __init__(self, decoder: Decoder, cache: SlotCache, width: int, span: int) -> None:
        device = decoder.shape.device
        self._decoder, self._cache, self._span = decoder, cache, span
        self._ids = torch.zeros((cache.slots, width), dtype=torch.int64, device=device)
        self._positions = torch.full_like(self._ids, cache.length - 1)
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._record()

    def run(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Int64 (slots, width) both -> (slots * width, hidden size), valid until the next run."""
        self._ids.copy_(ids, non_blocking=True)
        self._positions.copy_(positions, non_blocking=True)
        if self._graph is None:
            return self._forward()
        self._graph.replay()
        return self._hidden

    def _forward(self) -> Tensor:
        attend = self._cache.fixed_step(self._positions, self._span)
        embedded = self._decoder.embed(self._ids.flatten())
        return self._decoder.forward(embedded, self._positions.flatten(), attend)

    def _record(self) -> None:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # libraries set themselves up before the recording
            self._forward()
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._hidden = self._forward()
