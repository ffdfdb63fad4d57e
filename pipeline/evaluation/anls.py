"""ANLS*: one number in [0, 1] for how alike two JSON values are (Peer et al. 2024,
arXiv:2402.03848).

Leaves are compared as text by normalized Levenshtein similarity, and a similarity under one half
counts as nothing; objects are compared key by key; lists by the pairing of items that is best in
sum. The score is the sum over leaves, divided by the number of leaves of both sides together.
Where the paper's own program (`anls-star`) treats the two sides differently, this one does not: see
docs/EVALUATION.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist
from scipy.optimize import linear_sum_assignment

THRESHOLD = 0.5
"""Similarities of leaves below this count as 0 (Biten et al. 2019, arXiv:1905.13648)."""

Grid = NDArray[np.float64]

_ABSENT: Any = object()
_NESTED = (dict, list)
_FEW_PAIRS = 16
_PLAIN_DIGITS = 40
_similarity = Levenshtein.normalized_similarity


def anls_star(truth: Any, answer: Any) -> float:
    """Return the ANLS* of an answer beside the truth; 1 is the best.

    Takes JSON values (dict, list, str, bool, None; numbers as int, float or Decimal). Null, an
    empty list, an empty object and a key that is not there all state nothing, and are the same; an
    empty string is a value.
    """
    score, length = _compare(truth, answer)
    return score / length if length else 1.0


def anls_grid(truths: Sequence[Any], answers: Sequence[Any]) -> Grid:
    """Return the ANLS* of every truth beside every answer: float64 (truths, answers)."""
    return _average(*_compare_all(truths, answers))


def _average(score: Grid, length: Grid) -> Grid:
    return np.divide(score, length, out=np.ones_like(score), where=length > 0)


def _compare(truth: Any, answer: Any) -> tuple[float, float]:
    """Return the summed similarity, and the number of leaves."""
    if isinstance(truth, dict) and isinstance(answer, dict):
        parts = [
            _compare(truth.get(key, _ABSENT), answer.get(key, _ABSENT))
            for key in {**truth, **answer}
        ]
        return sum(score for score, _ in parts), sum(length for _, length in parts)
    if isinstance(truth, list) and isinstance(answer, list):
        return _compare_lists(truth, answer)
    silent = _is_silent(truth)
    if silent and _is_silent(answer):  # silence on a key that is not asked for is no merit
        return (0.0, 0.0) if truth is _ABSENT else (1.0, 1.0)
    if silent or _is_silent(answer) or isinstance(truth, _NESTED) or isinstance(answer, _NESTED):
        return 0.0, float(max(_size(truth), _size(answer)))
    return _similarity(_text(truth), _text(answer), score_cutoff=THRESHOLD), 1.0


def _compare_all(truths: Sequence[Any], answers: Sequence[Any]) -> tuple[Grid, Grid]:
    """Do as `_compare` for every pair: float64 (truths, answers), twice.

    Many pairs go by column, not one by one: 240 lines beside 240 are 57,600.
    """
    if len(truths) * len(answers) <= _FEW_PAIRS:
        return _compare_each(truths, answers)
    values = (*truths, *answers)
    if not any(isinstance(value, _NESTED) for value in values):
        return _compare_leaves(truths, answers)
    if all(isinstance(value, dict) for value in values):
        return _compare_objects(truths, answers)
    return _compare_each(truths, answers)


def _compare_each(truths: Sequence[Any], answers: Sequence[Any]) -> tuple[Grid, Grid]:
    pairs = [_compare(truth, answer) for truth in truths for answer in answers]
    score, length = np.array(pairs, dtype=np.float64).T.reshape(2, len(truths), len(answers))
    return score, length


def _compare_objects(truths: Sequence[Any], answers: Sequence[Any]) -> tuple[Grid, Grid]:
    score, length = np.zeros((2, len(truths), len(answers)))
    for key in dict.fromkeys(key for value in (*truths, *answers) for key in value):
        more, longer = _compare_all(
            [value.get(key, _ABSENT) for value in truths],
            [value.get(key, _ABSENT) for value in answers],
        )
        score += more
        length += longer
    return score, length


def _compare_leaves(truths: Sequence[Any], answers: Sequence[Any]) -> tuple[Grid, Grid]:
    score: Grid = cdist(
        [_text(value) for value in truths],
        [_text(value) for value in answers],
        scorer=_similarity,
        score_cutoff=THRESHOLD,
        dtype=np.float64,
    )
    length = np.ones_like(score)
    if not any(_is_silent(value) for value in (*truths, *answers)):
        return score, length
    silent_truth = np.array([_is_silent(value) for value in truths], dtype=bool)[:, np.newaxis]
    silent_answer = np.array([_is_silent(value) for value in answers], dtype=bool)[np.newaxis, :]
    score[silent_truth != silent_answer] = 0.0
    score[silent_truth & silent_answer] = 1.0
    no_key = np.array([value is _ABSENT for value in truths], dtype=bool)[:, np.newaxis]
    for grid in (score, length):
        grid[no_key & silent_answer] = 0.0
    return score, length


def _compare_lists(truths: list[Any], answers: list[Any]) -> tuple[float, float]:
    if not truths or not answers:
        return 0.0, float(_size(truths) + _size(answers))
    score, length = _compare_all(truths, answers)
    rows, columns = linear_sum_assignment(_average(score, length), maximize=True)
    apart = sum(_size(truths[i]) for i in set(range(len(truths))).difference(rows))
    apart += sum(_size(answers[j]) for j in set(range(len(answers))).difference(columns))
    return float(score[rows, columns].sum()), float(length[rows, columns].sum()) + apart


def _is_silent(value: Any) -> bool:
    return value is None or value is _ABSENT or (isinstance(value, _NESTED) and not value)


def _size(value: Any) -> int:
    """Return the number of leaves."""
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 1


def _text(value: Any) -> str:
    if isinstance(value, str):
        return " ".join(value.lower().split())
    if value is None or value is _ABSENT:
        return ""
    if isinstance(value, float):
        value = Decimal(repr(value))
    if isinstance(value, Decimal) and abs(value.adjusted()) < _PLAIN_DIGITS:
        value = f"{value.normalize():f}"  # 100, 1E+2 and 100.00 are one number
    return str(value).lower()
