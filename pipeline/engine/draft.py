"""Guesses from the page itself: what a born-digital page prints is mostly what the answer says.

Greedy answers do not depend on guesses: a guessed token counts only where the model, asked in the
same pass, would have chosen it. After "prompt lookup decoding" (Saxena, 2023), with the page's
text layer in the prompt's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

_MOST_CHARACTERS = 24
_LEAST_SEEN = 2
_LONGEST_SEEN = 12
_NUMBER_END = re.compile(r"^.*[^0-9.-]", re.DOTALL)


class Drafter:
    """Finds where the answer's value stands on the page, and proposes how the page goes on.

    `tokens_of` writes text as the model would inside an answer, `text_of` reads it.
    """

    def __init__(
        self,
        page: str,
        tokens_of: Callable[[str], Sequence[int]],
        text_of: Callable[[Sequence[int]], str],
        most_tokens: int = 8,
    ) -> None:
        self._page = f"\n{page}\n"
        self._tokens_of = tokens_of
        self._text_of = text_of
        self._most_tokens = most_tokens
        self._last = 0

    def guess(self, answer: Sequence[int]) -> list[int]:
        """Return tokens that may follow `answer`, none if the page says nothing of it."""
        place = self._place(_value(self._text_of(answer)))
        if place is None:
            return []
        self._last = place
        rest = self._page[place : place + _MOST_CHARACTERS].split("\n", 1)[0]
        return list(self._tokens_of(rest.split("  ", 1)[0])[: self._most_tokens]) if rest else []

    def _place(self, value: str) -> int | None:
        """Return where the page goes on after `value`: on from the last place, or where it first
        stands, at the beginning of a word."""
        if len(value) < _LEAST_SEEN:
            return None
        seen = value[-_LONGEST_SEEN:]
        before = len(value) == len(seen)
        starts = (self._last, 0) if self._last else (0,)
        for start in starts:
            at = self._page.find(seen, max(0, start - len(seen)))
            while at >= 0:
                if not before or not self._page[at - 1].isalnum():
                    return at + len(seen)
                at = self._page.find(seen, at + 1)
        return None


def _value(answer: str) -> str:
    """Return the string or number at the end of JSON text under way, as far as it is written."""
    strings = answer.replace('\\"', "  ").split('"')
    if len(strings) % 2 == 0:
        return strings[-1]
    return _NUMBER_END.sub("", strings[-1])
