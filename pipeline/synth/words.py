"""Made-up words, divided among the splits so that no split ever sees another's.

A text's split follows from its spelling alone, so splits stay apart whatever the seed, the order
of drawing, or the letters' case.
"""

from __future__ import annotations

import random
import zlib
from enum import StrEnum

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_ONSETS: tuple[str, ...] = (
    *"bcdfghjklmnprstvw" * 3,
    *("y", "z", "qu", "ch", "sh", "th", "br", "cr", "dr", "fr", "gr", "pr", "tr", "bl", "cl"),
    *("fl", "gl", "pl", "sl", "sk", "sm", "sn", "sp", "st", "sw", "tw", "kn", "wh", "str", "spr"),
)
_VOWELS: tuple[str, ...] = (
    *"aeiou" * 6,
    "y",
    "ai",
    "au",
    "ea",
    "ee",
    "ie",
    "io",
    "oa",
    "oo",
    "ou",
    "ue",
)
_INNER_CODAS: tuple[str, ...] = (*"lmnrs" * 2, "n", "r", "ck", "l", "m", "x")
_CODAS: tuple[str, ...] = (
    *"dgklmnprst" * 2,
    *("b", "f", "h", "w", "x", "z", "ck", "ll", "ss", "tt", "nd", "nt", "ng", "rd", "rt", "rn"),
    *("st", "sh", "th", "lk", "lt", "mp", "nk", "rk", "rm"),
)
_SYLLABLE_COUNTS = (1, 2, 2, 2, 2, 3, 3)
_GIBBERISH_SHARE = 0.12
_GIBBERISH_LONGEST = 7


class Split(StrEnum):
    """What a word, an amount or a date may be used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


_SPLITS = (Split.TEST, Split.VALIDATION, *[Split.TRAIN] * 8)


def split_of(text: str) -> Split:
    """Return the split that owns `text`; upper and lower case are the same word."""
    return _SPLITS[zlib.crc32(text.lower().encode()) % 10]


def made_up_word(rng: random.Random, split: Split, shortest: int, longest: int) -> str:
    """Return a lower-case word of `split`, of `shortest` to `longest` letters.

    Most can be spoken, and one in eight is random letters, so that a reader cannot guess what it
    did not see.
    """
    is_gibberish = rng.random() < _GIBBERISH_SHARE
    while True:
        word = (_gibberish if is_gibberish else _spoken)(rng, shortest, longest)
        if shortest <= len(word) <= longest and split_of(word) is split:
            return word


def _gibberish(rng: random.Random, shortest: int, longest: int) -> str:
    length = rng.randint(shortest, min(longest, _GIBBERISH_LONGEST))
    return "".join(rng.choices(_ALPHABET, k=length))


def _spoken(rng: random.Random, shortest: int, longest: int) -> str:
    """Return syllables; only the last may end in more than a sound or two."""
    n_syllables = rng.choice(_SYLLABLE_COUNTS)
    if longest < 6:
        n_syllables = min(n_syllables, 2)
    if shortest > 4:
        n_syllables = max(n_syllables, 2)
    word = "" if rng.random() < 0.1 else rng.choice(_ONSETS)
    for _ in range(n_syllables - 1):
        coda = rng.choice(_INNER_CODAS) if rng.random() < 0.35 else ""
        word += rng.choice(_VOWELS) + coda + rng.choice(_ONSETS)
    return word + rng.choice(_VOWELS) + (rng.choice(_CODAS) if rng.random() < 0.6 else "")
