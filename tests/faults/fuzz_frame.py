"""What all fuzzing shares: a target makes cases from seeds and judges them."""

from __future__ import annotations

import random
from typing import Protocol


class Escape(AssertionError):
    """A law was broken; the message says how."""


class Target(Protocol):
    """Makes mutated inputs of one kind, and puts them through the product."""

    name: str

    def make(self, chance: random.Random) -> tuple[str, bytes]:
        """Return the name of a mutator, and a case it made; the same for the same randomness."""

    def judge(self, case: bytes) -> str:
        """Put a case through; return how it ended, in a word or two.

        Any exception is an escape: what the product should have caught, or an `Escape`.
        """

    def close(self) -> None:
        """Check that nothing is left behind, and end what was started."""


def require_one_line(message: str, longest: int) -> None:
    """Raise Escape if a message is not one printable line."""
    if not (message.isprintable() and 0 < len(message) <= longest):
        raise Escape(f"not one printable line of {longest}: {message[:500]!a}")
