"""Answers of forced lengths, for models whose weights are random and never come to an end.

Every way chooses greedily among all tokens but the stop tokens, until the answer's length is
reached. An answer of n tokens takes n passes in every way: in a static batch the longest meets the
batch's limit, and the others stop by themselves and idle until then.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from pipeline.bench.through import Through
from pipeline.models.base import Vocabulary
from pipeline.models.stepping import SteppingModel

_VARIATION = 0.4
_LEAST = 16


def draw_lengths(count: int, mean: int, seed: int) -> tuple[int, ...]:
    """Return tokens of `count` answers: normal, coefficient of variation 0.4, at least 16."""
    rng = random.Random(f"lengths {seed}")
    drawn = (round(rng.gauss(mean, _VARIATION * mean)) for _ in range(count))
    return tuple(max(_LEAST, length) for length in drawn)


class FixedLength:
    """A `pipeline.models.base.Constraint`: `length` tokens of any kind but stop tokens, then stop.

    Padding of the vocabulary is let through, as the model lets it through without a grammar.
    """

    def __init__(self, vocabulary: Vocabulary, length: int) -> None:
        self._left = length
        self._stops = np.zeros(len(vocabulary.tokens), np.bool_)
        self._stops[list(vocabulary.stop_ids)] = True
        self._others = ~self._stops

    def allowed(self) -> NDArray[np.bool_]:
        """Return bool (vocabulary size,)."""
        return self._others if self._left > 0 else self._stops

    def accept(self, token_id: int) -> None:
        """Count one token."""
        del token_id
        self._left -= 1


class Unending(Through):
    """A model that never chooses a stop token in the engine; a request's limit ends its answer."""

    def __init__(self, model: SteppingModel) -> None:
        super().__init__(model)
        self.never = (*model.never, *model.vocabulary.stop_ids)
