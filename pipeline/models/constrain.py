"""Grammar masks inside transformers' `generate`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from transformers.generation import LogitsProcessor

from pipeline.models.base import Constraint


class ConstrainedLogits(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Masks each row's logits to what its grammar allows, and notes the best one's probability.

    `generate` calls it once a step with all tokens so far; a token that the last call let through
    is fed to the row's grammar at the next call. `never` ids are masked for every row.
    """

    def __init__(
        self,
        constraints: Sequence[Constraint | None],
        stop_ids: Sequence[int],
        never: Sequence[int],
    ) -> None:
        self._constraints = constraints
        self._stopped = [False] * len(constraints)
        self._stop_ids = frozenset(stop_ids)
        self._never = list(never)
        self._best: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return masked logits, float of shape (rows, vocabulary)."""
        if self._best:
            self._advance(input_ids[:, -1].tolist())
        scores = scores.clone()
        scores[:, self._never] = -torch.inf
        blocked = np.zeros(scores.shape, np.bool_)
        for row, constraint in enumerate(self._constraints):
            if constraint is not None and not self._stopped[row]:
                allowed = constraint.allowed()
                blocked[row, : len(allowed)] = ~allowed
                blocked[row, len(allowed) :] = True
        if blocked.any():
            scores = scores.masked_fill(torch.from_numpy(blocked).to(scores.device), -torch.inf)
        self._best.append(scores.float().log_softmax(-1).max(-1).values)
        return scores

    def _advance(self, tokens: Sequence[int]) -> None:
        for row, token in enumerate(tokens):
            if self._stopped[row]:
                continue
            if token in self._stop_ids:
                self._stopped[row] = True
            elif (constraint := self._constraints[row]) is not None:
                constraint.accept(token)

    def logprobs(self) -> list[list[float]]:
        """Return each row's greedy log-probabilities, one a step; steps past its end included."""
        if not self._best:
            return [[] for _ in self._constraints]
        rows: list[list[float]] = torch.stack(self._best, dim=1).tolist()
        return rows
