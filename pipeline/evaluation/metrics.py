"""When a value is right, how wrong a text is, and which items of two lists belong together."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict, deque
from collections.abc import Hashable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein
from scipy.optimize import linear_sum_assignment

from pipeline.evaluation.anls import anls_grid
from pipeline.evaluation.shape import Kind, Leaf, List, Object, Shape

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
_IN_PLACE = 1e-6


def matches(kind: Kind, truth: Any, answer: Any) -> bool:
    """Return True if two values of a type are the same value (see `value_key`)."""
    return value_key(kind, truth) == value_key(kind, answer)


def value_key(kind: Kind, value: Any) -> Hashable:
    """Return what values of a type have in common exactly if they are the same value.

    Strings: the same characters. Numbers: equal as decimals, 3.5 and 3.50, also if written as a
    JSON string. Dates: the same day in any ISO 8601 form. Date-times: the same instant. A value
    that is not of the type is the same as its equals in JSON only.
    """
    if value is None:
        return None
    typed = _typed(kind, value)
    return (kind, typed) if typed is not None else _json_key(value)


def fits(kind: Kind, value: Any) -> bool:
    """Return True if a value is null or of the type, as `value_key` reads it."""
    return value is None or _typed(kind, value) is not None


def alike(truth: Any, answer: Any) -> bool:
    """Return True if two strings are the same but for case, white space and Unicode form (NFC)."""
    if not (isinstance(truth, str) and isinstance(answer, str)):
        return False
    return _plain(truth) == _plain(answer)


def record_key(shape: Shape, value: Any) -> Hashable:
    """Return what records have in common exactly if every value is the same.

    The order of a list's items does not count, and neither do keys that the schema does not name.
    """
    match shape:
        case Leaf(kind):
            return value_key(kind, value)
        case Object(fields):
            inside = value if isinstance(value, dict) else {}
            return tuple(record_key(child, inside.get(name)) for name, child in fields.items())
        case List(item):
            items = value if isinstance(value, list) else []
            return frozenset(Counter(record_key(item, one) for one in items).items())


def edits(truth: str, answer: str) -> int:
    """Return the Levenshtein distance in characters (Unicode code points, as they are)."""
    return Levenshtein.distance(truth, answer)


def pair_items(
    item: Shape, truths: Sequence[Any], answers: Sequence[Any]
) -> tuple[list[tuple[int, int]], int]:
    """Pair the items of two lists; return (truth, answer) indices, and how many are the same.

    Items that are the same are paired first; the rest so that the sum of their ANLS* is greatest
    (Kuhn 1955, by `scipy.optimize.linear_sum_assignment`). Of pairings equally good, the one
    nearest to the lists' order is taken. Items with nothing in common are left unpaired.
    """
    waiting: defaultdict[Hashable, deque[int]] = defaultdict(deque)
    for j, answer in enumerate(answers):
        waiting[record_key(item, answer)].append(j)
    pairs: list[tuple[int, int]] = []
    rest_truth: list[int] = []
    for i, truth in enumerate(truths):
        same = waiting.get(record_key(item, truth))
        if same:
            pairs.append((i, same.popleft()))
        else:
            rest_truth.append(i)
    n_same = len(pairs)
    rest_answer = sorted(j for queue in waiting.values() for j in queue)
    if rest_truth and rest_answer:
        pairs += _pair_rest(truths, answers, rest_truth, rest_answer)
    return sorted(pairs), n_same


def _pair_rest(
    truths: Sequence[Any], answers: Sequence[Any], rows: list[int], columns: list[int]
) -> list[tuple[int, int]]:
    alikeness = anls_grid([truths[i] for i in rows], [answers[j] for j in columns])
    distance = np.abs(np.subtract.outer(np.array(rows), np.array(columns)))
    worth = alikeness - _IN_PLACE * distance / (len(truths) + len(answers))
    found = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
    return [(rows[i], columns[j]) for i, j in found if alikeness[i, j] > 0]


def _typed(kind: Kind, value: Any) -> Hashable:
    """Return a value as its type holds it, None if it is not of the type."""
    match kind:
        case Kind.STRING:
            return value if isinstance(value, str) else None
        case Kind.NUMBER | Kind.INTEGER:
            return _number(value)
        case Kind.BOOLEAN:
            return value if isinstance(value, bool) else None
        case Kind.DATE:
            return _date(value)
        case Kind.DATE_TIME:
            return _date_time(value)
        case Kind.JSON:
            return _json_key(value)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        value = repr(value)
    if isinstance(value, (int, Decimal)) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return Decimal(value)
    return None


def _date(value: Any) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _date_time(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        return found.astimezone(UTC) if found and found.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _json_key(value: Any) -> Hashable:
    """Return a key of any JSON value; what a list holds, it holds in order."""
    if isinstance(value, dict):
        return ("object", frozenset((name, _json_key(inner)) for name, inner in value.items()))
    if isinstance(value, list):
        return ("array", *map(_json_key, value))
    number = None if isinstance(value, str) else _number(value)
    return (type(value).__name__, value) if number is None else ("number", number)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
