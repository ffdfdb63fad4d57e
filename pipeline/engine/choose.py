"""Logits and what the grammar allows -> the next tokens, and how sure the model is of them."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def choose(
    logits: Tensor, packed: NDArray[np.uint8], vocabulary: int
) -> tuple[list[int], list[float]]:
    """Return the best allowed token of each position, and its log-probability among the allowed.

    `logits` is float32 (positions, vocabulary or more) and is overwritten; `packed` uint8
    (positions, bytes), see `pipeline.engine.grammar.Masks`. Ids past the vocabulary, padding of the
    model's output, are not allowed.
    """
    bits = torch.from_numpy(packed).to(logits.device, non_blocking=True)
    refused = (bits.unsqueeze(-1) & _powers(logits.device)).eq(0).flatten(1)[:, :vocabulary]
    best = logits[:, :vocabulary].masked_fill_(refused, -torch.inf).log_softmax(-1).max(dim=-1)
    # Both in one transfer: ids are exact as float64.
    both = torch.stack((best.indices.double(), best.values.double()))
    ids, logprobs = both.tolist()
    return [int(token) for token in ids], logprobs


@cache
def _powers(device: torch.device) -> Tensor:
    return torch.tensor([1, 2, 4, 8, 16, 32, 64, 128], dtype=torch.uint8, device=device)
