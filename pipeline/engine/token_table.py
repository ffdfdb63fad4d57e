"""What a grammar's state looks up about tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.models.base import Vocabulary

_CLOSING_FIRST = b'"}],n0123456789-tf[{'


class TokenTable:
    """A vocabulary's tokens. `canonical`: the grammar's library tokenizes as the model does."""

    def __init__(self, vocabulary: Vocabulary, *, canonical: bool) -> None:
        self.size = len(vocabulary.tokens)
        self.stop_ids = tuple(vocabulary.stop_ids)
        self.canonical = canonical
        self._tokens = vocabulary.tokens
        self._special = frozenset(vocabulary.special_ids)

    def only(self, ids: Sequence[int]) -> NDArray[np.bool_]:
        """Return bool (vocabulary size,), True for `ids`."""
        mask = np.zeros(self.size, np.bool_)
        mask[list(ids)] = True
        return mask

    def spell(self, text: bytes) -> list[int]:
        """Return the longest tokens that write the beginning of `text`.

        Up to where a longer token might begin that goes on behind the text.
        """
        ids: list[int] = []
        start = 0
        while start < len(text) and text[start:] not in self._beginnings:
            reach = min(self._longest, len(text) - start)
            lengths = range(reach, 0, -1)
            token = next(
                (
                    i
                    for n in lengths
                    if (i := self._by_text.get(text[start : start + n])) is not None
                ),
                None,
            )
            if token is None:
                break
            ids.append(token)
            start += len(self._tokens[token])
        return ids

    @cached_property
    def closing_rank(self) -> NDArray[np.int64]:
        """How soon a token ends a JSON value, int64 (vocabulary size,), the soonest least.

        Stop tokens, then by the first byte: of a string, object or list the end, then what
        separates, then short values, then what opens. Of two the shorter.
        """
        rank = np.empty(self.size, np.int64)
        for token, text in enumerate(self._tokens):
            place = _CLOSING_FIRST.find(text[:1]) if text else -1
            first = place if place >= 0 else len(_CLOSING_FIRST)
            rank[token] = (1 + first) * 1000 + min(len(text), 999)
        rank[list(self.stop_ids)] = 0
        return rank

    @cached_property
    def _by_text(self) -> dict[bytes, int]:
        return {
            text: token
            for token, text in enumerate(self._tokens)
            if text and token not in self._special
        }

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._by_text), default=0)

    @cached_property
    def _beginnings(self) -> frozenset[bytes]:
        """Every text that a longer token begins with."""
        return frozenset(text[:n] for text in self._by_text for n in range(1, len(text)))
