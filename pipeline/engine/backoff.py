"""How much to work on at once when memory runs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Backoff:
    """Half as much after memory ran out, and little by little as much as before again.

    It may have been short for a moment only: `steps` pieces of work lead back to `most`.
    """

    def __init__(self, most: int, steps: int) -> None:
        self._most = most
        self._gain = most / steps
        self._now = float(most)

    @property
    def now(self) -> int:
        """How much to work on at once; at least 1."""
        return max(1, int(self._now))

    def parts(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """Cut work into parts of what is to be done at once, as it changes meanwhile."""
        start = 0
        while start < len(items):
            part = items[start : start + self.now]
            start += len(part)
            yield part

    @contextmanager
    def trying(self, amount: int, least: int = 1) -> Iterator[None]:
        """Learn from a piece of work; memory that did not do for `least` teaches nothing."""
        try:
            yield
        except MemoryError:
            if amount > least:
                self._now = max(1.0, min(self._now, amount // 2))
            raise
        self._now = min(self._most, self._now + self._gain)
