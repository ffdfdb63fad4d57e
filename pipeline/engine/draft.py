"""Guesses of what comes next: from the page's text layer, and from the answers before.

Greedy answers do not depend on guesses, in float32 and but for ties: a guessed token counts only
where the model, asked in the same pass, would have chosen it. After "prompt lookup decoding"
(Saxena, 2023), with the page's text layer in the prompt's place, and SuffixDecoding (Oliaro et al.,
arXiv:2411.04975), with counts in the suffix tree's place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_MOST_CHARACTERS = 24
_LEAST_SEEN = 2
_LONGEST_SEEN = 12
_NUMBER_END = re.compile(r"^.*[^0-9.-]", re.DOTALL)
_ORDERS = (3, 2, 1)
_LEAST_CERTAIN = 0.4
"""A guess less likely than this costs more in its pass than it saves."""
_LEAST_CERTAIN_CHAIN = 0.3
_MOST_GUESSED = 4
_MOST_FOLLOWERS = 64


class Drafter:
    """Guesses for one answer: as the page goes on, or else as answers mostly went on."""

    def __init__(self, history: History, page: PageText | None = None) -> None:
        self._history = history
        self._page = page

    def guess(self, answer: Sequence[int]) -> list[int]:
        """Return tokens that may follow `answer`, none if nothing speaks for any."""
        if self._page is not None and (printed := self._page.guess(answer)):
            return printed
        return self._history.guess(answer)


@dataclass(slots=True)
class _Followers:
    """How often each token came next; the most frequent is kept at hand."""

    total: int = 0
    best: int = -1
    counts: dict[int, int] = field(default_factory=dict)

    def add(self, token: int) -> None:
        self.total += 1
        if len(self.counts) == _MOST_FOLLOWERS:  # anything may follow: of those only one matters
            self.counts = {self.best: self.counts[self.best]}
        self.counts[token] = self.counts.get(token, 0) + 1
        if self.best < 0 or self.counts[token] > self.counts[self.best]:
            self.best = token


class History:
    """Counts what followed the last three, two, and one tokens in the answers so far."""

    def __init__(self, most_contexts: int = 1 << 16) -> None:
        self._most_contexts = most_contexts
        self._followers: dict[tuple[int, ...], _Followers] = {}

    def __len__(self) -> int:
        return len(self._followers)

    def learn(self, answer: Sequence[int]) -> None:
        """Count in a finished answer."""
        for end in range(1, len(answer)):
            for order in _ORDERS:
                if order <= end:
                    self._count(tuple(answer[end - order : end]), answer[end])

    def guess(self, answer: Sequence[int]) -> list[int]:
        """Return the likeliest way on, as far as it is likely."""
        last = tuple(answer[-max(_ORDERS) :])
        guessed: list[int] = []
        certain = 1.0
        while len(guessed) < _MOST_GUESSED:
            token, share = self._next(last)
            certain *= share
            if share < _LEAST_CERTAIN or certain < _LEAST_CERTAIN_CHAIN:
                break
            guessed.append(token)
            last = (*last[1 - max(_ORDERS) :], token)
        return guessed

    def _next(self, last: tuple[int, ...]) -> tuple[int, float]:
        for order in _ORDERS:
            followers = self._followers.get(last[-order:])
            if followers is not None and followers.total > 1:
                return followers.best, followers.counts[followers.best] / (followers.total + 1)
        return -1, 0.0

    def _count(self, context: tuple[int, ...], token: int) -> None:
        followers = self._followers.get(context)
        if followers is None:
            if len(self._followers) >= self._most_contexts:
                self._forget()
            followers = self._followers[context] = _Followers()
        followers.add(token)

    def _forget(self) -> None:
        """Drop what was seen once, or if that is not half of it all, everything."""
        often = {key: seen for key, seen in self._followers.items() if seen.total > 1}
        self._followers = often if len(often) < self._most_contexts // 2 else {}


class PageText:
    """Finds where the answer's value stands on the page, and proposes how the page goes on.

    `tokens_of` writes text as the model would inside an answer, `text_of` reads it.
    """

    def __init__(
        self,
        page: str,
        tokens_of: Callable[[str], Sequence[int]],
        text_of: Callable[[Sequence[int]], str],
        most_tokens: int = _MOST_GUESSED,
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
