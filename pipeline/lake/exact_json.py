"""JSON with exact numbers: `Decimal` in, `Decimal` out, and never a float between.

The standard library parses decimals exactly (`parse_float`), but cannot write them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any


def dumps(value: Any) -> str:
    """Write a JSON value as compact text, numbers as they were given.

    Raises
    ------
    ValueError
        If a number is not finite.
    TypeError
        If a value has no JSON form, or an object's key is not a string.
    """
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts)


def loads(text: str) -> Any:
    """Parse JSON; integers become `int`, other numbers `Decimal`.

    Raises
    ------
    ValueError
        If the text is not JSON, or has a number past what `Decimal` can hold. NaN and Infinity are
        not JSON.
    """
    return json.loads(text, parse_float=_decimal, parse_constant=_refuse)


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # JSON sets exponents no limit
        raise ValueError("a number is out of range") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _write(value: Any, parts: list[str]) -> None:
    if isinstance(value, str):
        parts.append(json.dumps(value, ensure_ascii=False))
    elif value is None or isinstance(value, bool):
        parts.append(json.dumps(value))
    elif isinstance(value, (int, float, Decimal)):
        if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
            raise ValueError(f"{value} is not a JSON number")
        parts.append(str(value))
    elif isinstance(value, Mapping):
        _write_object(value, parts)
    elif isinstance(value, Sequence):
        parts.append("[")
        for index, item in enumerate(value):
            if index:
                parts.append(",")
            _write(item, parts)
        parts.append("]")
    else:
        raise TypeError(f"{type(value).__name__} has no JSON form")


def _write_object(value: Mapping[Any, Any], parts: list[str]) -> None:
    parts.append("{")
    for index, (key, item) in enumerate(value.items()):
        if not isinstance(key, str):
            raise TypeError(f"an object's key is a string, not {type(key).__name__}")
        if index:
            parts.append(",")
        parts.append(json.dumps(key, ensure_ascii=False))
        parts.append(":")
        _write(item, parts)
    parts.append("}")
