"""Logits and what the grammar allows -> the next tokens, and how sure the model is of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Allowed = Sequence[NDArray[np.bool_] | None]
"""One mask (vocabulary of the grammar,) a position; None allows everything."""


def choose(logits: Tensor, allowed: Allowed, never: Sequence[int]) -> tuple[list[int], list[float]]:
    """Return the best allowed token of each position, and its log-probability among the allowed.

    `logits` is float32 (positions, vocabulary) and is overwritten. Ids past a mask's end, padding
    of the model's output, are not allowed.
    """
    if never:
        logits[:, list(never)] = -torch.inf
    if any(mask is not None for mask in allowed):
        blocked = np.zeros(logits.shape, np.bool_)
        for row, mask in zip(blocked, allowed, strict=True):
            if mask is not None:
                np.logical_not(mask, out=row[: len(mask)])
                row[len(mask) :] = True
        logits.masked_fill_(torch.from_numpy(blocked).to(logits.device), -torch.inf)
    best = logits.max(dim=-1)
    # Both in one transfer: ids are exact as float64.
    both = torch.stack((best.indices.double(), (best.values - logits.logsumexp(-1)).double()))
    ids, logprobs = both.tolist()
    return [int(token) for token in ids], logprobs
