"""Made-up words, divided among the splits so that no split ever sees another's.

A word's split follows from its spelling alone, so splits stay apart whatever the seed, the order
of drawing, or the letters' case.
"""

from __future__ import annotations

import random
import zlib
from enum import StrEnum

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_ONSETS: tuple[str, ...] = (
    *"bcdfghjklmnpqrstvwxyz",
    "br",
    "st",
    "tr",
    "ch",
    "sh",
    "pl",
    "gr",
    "kn",
    "th",
    "ck",
)
_VOWELS: tuple[str, ...] = (*"aeiouaeio", "ai", "ou", "ea", "ee", "oo")
_SYLLABLE_COUNTS = (1, 2, 2, 2, 3)
_GIBBERISH_LONGEST = 7


class Split(StrEnum):
    """What a word may be used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split_of(word: str) -> Split:
    """Return the split that owns `word`; upper and lower case are the same word."""
    bucket = zlib.crc32(word.lower().encode()) % 10
    return {0: Split.TEST, 1: Split.VALIDATION}.get(bucket, Split.TRAIN)


def made_up_word(rng: random.Random, split: Split, shortest: int, longest: int) -> str:
    """Return a lower-case word of `split`, of `shortest` to `longest` letters.

    A quarter of the words are random letters, so that a reader cannot guess what it did not see.
    """
    while True:
        word = _gibberish(rng, shortest, longest) if rng.random() < 0.25 else _syllables(rng)
        if shortest <= len(word) <= longest and split_of(word) is split:
            return word


def _gibberish(rng: random.Random, shortest: int, longest: int) -> str:
    length = rng.randint(shortest, min(longest, _GIBBERISH_LONGEST))
    return "".join(rng.choices(_ALPHABET, k=length))


def _syllables(rng: random.Random) -> str:
    return "".join(_syllable(rng) for _ in range(rng.choice(_SYLLABLE_COUNTS)))


def _syllable(rng: random.Random) -> str:
    onset = rng.choice(_ONSETS) if rng.random() < 0.9 else ""
    coda = rng.choice(_ONSETS) if rng.random() < 0.4 else ""
    return onset + rng.choice(_VOWELS) + coda
