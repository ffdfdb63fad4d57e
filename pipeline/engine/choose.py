"""Logits and what the grammar allows -> the next tokens, and how sure the model is of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.engine.grammar import Masks
from pipeline.engine.row import Row
from pipeline.models.stepping import SteppingModel


class Choice(NamedTuple):
    """What a row is to `take`."""

    ids: list[int]
    logprobs: list[float]


class Chooser:
    """Chooses what comes next for rows, of what their grammars allow. For one thread."""

    def __init__(self, model: SteppingModel, threads: int) -> None:
        """`threads` compute masks."""
        self._decoder = model.decoder
        self._size = len(model.vocabulary.tokens)
        self._masks = Masks(self._size, model.never, threads)

    def choose(self, rows: Sequence[Row], hidden: Tensor) -> list[Choice]:
        """Return what is chosen behind each row's pending tokens, and behind each guess.

        `hidden` (positions, width) is the decoder's output there.
        """
        logits = self._decoder.logits(hidden)
        # A device other than the CPU is at work until the logits are asked for.
        packed = self._masks.packed([(row.grammar, row.draft) for row in rows])
        ids, logprobs = best_allowed(logits, packed, self._size)
        ends = np.cumsum([1 + len(row.draft) for row in rows]).tolist()
        return [
            Choice(ids[start:end], logprobs[start:end])
            for start, end in zip([0, *ends], ends, strict=False)
        ]


def best_allowed(
    logits: Tensor, packed: NDArray[np.uint8], vocabulary: int
) -> tuple[list[int], list[float]]:
    """Return the best allowed token of each position, and its log-probability among the allowed.

    `logits` is float32 (positions, vocabulary or more) and is overwritten; `packed` uint8
    (positions, bytes), see `pipeline.engine.grammar.Masks`. Ids past the vocabulary, padding of the
    model's output, are not allowed.
    """
    bits = torch.from_numpy(packed).to(logits.device, non_blocking=True)
    refused = (bits.unsqueeze(-1) & _powers(logits.device)).eq(0).flatten(1)[:, :vocabulary]
    allowed = logits[:, :vocabulary].masked_fill_(refused, -torch.inf)
    best = allowed.max(dim=-1)
    logprobs_of_best = best.values - allowed.logsumexp(-1)
    # Both in one transfer: ids are exact as float64.
    both = torch.stack((best.indices.double(), logprobs_of_best.double()))
    ids, logprobs = both.tolist()
    return [int(token) for token in ids], logprobs


@cache
def _powers(device: torch.device) -> Tensor:
    return torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=device)
