"""JSON with exact numbers: `Decimal` in, `Decimal` out, and never a float between.

The standard library parses decimals exactly (`parse_float`), but cannot write them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

MAX_DEPTH = 100
"""Objects and arrays inside one another; what reads, checks or merges values calls itself so often.
"""


def dumps(value: Any, *, spaced: bool = False) -> str:
    """Write a JSON value as compact text, numbers as they were given.

    `spaced` writes a space behind commas and colons, as `json.dumps` does.

    Raises
    ------
    ValueError
        If a number is not finite.
    TypeError
        If a value has no JSON form, or an object's key is not a string.
    """
    parts: list[str] = []
    _write(value, parts, (", ", ": ") if spaced else (",", ":"))
    return "".join(parts)


def loads(text: str) -> Any:
    """Parse JSON; integers become `int`, other numbers `Decimal`.

    Raises
    ------
    ValueError
        If the text is not JSON, is nested more than `MAX_DEPTH` deep, or has a number past what
        `Decimal` can hold, or of more digits than `int` reads. NaN and Infinity are not JSON.
    """
    try:
        value = json.loads(text, parse_float=_decimal, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for one in level if isinstance(one, (dict, list)) for item in _items(one)]
    return any(isinstance(one, (dict, list)) for one in level)


def _items(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _decimal(text: str) -> Decimal:
    if len(text) > sys.get_int_max_str_digits() > 0:
        raise ValueError("a number has too many digits")
    try:
        return Decimal(text)
    except InvalidOperation:  # JSON sets exponents no limit
        raise ValueError("a number is out of range") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _write(value: Any, parts: list[str], between: tuple[str, str]) -> None:
    if isinstance(value, str):
        parts.append(json.dumps(value, ensure_ascii=False))
    elif value is None or isinstance(value, bool):
        parts.append(json.dumps(value))
    elif isinstance(value, (int, float, Decimal)):
        # A long int is finite, and no float is as large.
        if not (isinstance(value, int) or Decimal(value).is_finite()):
            raise ValueError(f"{value} is not a JSON number")
        parts.append(str(value))
    elif isinstance(value, Mapping):
        _write_object(value, parts, between)
    elif isinstance(value, Sequence):
        parts.append("[")
        for index, item in enumerate(value):
            if index:
                parts.append(between[0])
            _write(item, parts, between)
        parts.append("]")
    else:
        raise TypeError(f"{type(value).__name__} has no JSON form")


def _write_object(value: Mapping[Any, Any], parts: list[str], between: tuple[str, str]) -> None:
    parts.append("{")
    for index, (key, item) in enumerate(value.items()):
        if not isinstance(key, str):
            raise TypeError(f"an object's key is a string, not {type(key).__name__}")
        if index:
            parts.append(between[0])
        parts.append(json.dumps(key, ensure_ascii=False))
        parts.append(between[1])
        _write(item, parts, between)
    parts.append("}")
