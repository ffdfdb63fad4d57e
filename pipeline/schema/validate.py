"""Whether an answer fits its schema, exactly: numbers are int or Decimal, never float."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from pipeline.schema.load import Schema

_MESSAGE_LENGTH = 300
_ERRORS = 1000
_TIME = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
_URI = r"[A-Za-z][A-Za-z0-9+.-]*:([A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*"


class Validator:
    """Judges answers by one schema document, true or relaxed. Building it is the slow part.

    Instances come from `json.loads(text, parse_float=Decimal)`. The formats date, date-time, time
    (RFC 3339), email and uri (RFC 3986) are checked; other formats are not.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        exact = json.loads(json.dumps(document), parse_float=Decimal)
        self._validator = _Exact(exact, format_checker=_FORMATS)

    def violation(self, instance: Any) -> str | None:
        """Return None if the instance fits, else one line: the JSON path and what is wrong."""
        try:
            # The best of the first will do: a long list of misfits has hundreds of thousands.
            error = best_match(islice(self._validator.iter_errors(instance), _ERRORS))
        except RecursionError:
            return "$: nested too deeply to be checked"
        return None if error is None else _line(error)


def validate(schema: Schema, instance: Any) -> str | None:
    """Return None if the instance fits the true schema, else one line saying where it does not."""
    return _validator(schema).violation(instance)


@lru_cache(maxsize=8)
def _validator(schema: Schema) -> Validator:
    return Validator(schema.document)


def _line(error: ValidationError) -> str:
    message = re.sub(r"Decimal\('([^']*)'\)", r"\1", error.message)
    line = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in f"{error.json_path}: {message}"
    )
    return line if len(line) <= _MESSAGE_LENGTH else line[: _MESSAGE_LENGTH - 3] + "..."


def _is_number(_: Any, value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite()
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(_: Any, value: Any) -> bool:
    if isinstance(value, Decimal):
        return value.is_finite() and value == value.to_integral_value()
    if isinstance(value, float):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


def _multiple_of(validator: Any, step: int | Decimal, value: Any, _: Any) -> Any:
    if validator.is_type(value, "number") and not _is_multiple(value, step):
        yield ValidationError(f"{value!r} is not a multiple of {step}")


def _is_multiple(value: int | float | Decimal, step: int | Decimal) -> bool:
    """Exact for any exponent: Decimal's own remainder fails on quotients of over 28 digits."""
    number, number_exponent = _scaled(value)
    unit, unit_exponent = _scaled(step)
    shift = number_exponent - unit_exponent
    if shift >= 0:
        return number * pow(10, shift, unit) % unit == 0
    if number == 0:
        return True
    return -shift <= len(str(number)) and number % (unit * 10**-shift) == 0


def _unique_items(validator: Any, wanted: bool, value: Any, _: Any) -> Any:
    if wanted and validator.is_type(value, "array"):
        seen: set[Hashable] = set()
        for index, key in enumerate(map(_key, value)):
            if key in seen:
                yield ValidationError(f"item {index} is there twice: {value[index]!r}")
                return
            seen.add(key)


def _key(value: Any) -> Hashable:
    """What is equal for equal values: jsonschema compares each item with each other one."""
    if isinstance(value, Mapping):
        return "object", frozenset((name, _key(item)) for name, item in value.items())
    if isinstance(value, list):
        return "array", tuple(map(_key, value))
    return isinstance(value, bool), value  # true is not 1, and 1 is 1.0


def _scaled(value: int | float | Decimal) -> tuple[int, int]:
    """Return (n, e) such that the value is n * 10**e."""
    if isinstance(value, int):
        return value, 0
    sign, digits, exponent = Decimal(str(value)).as_tuple()
    number = int("".join(map(str, digits)))
    return (-number if sign else number), int(exponent)


_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date", raises=ValueError)
def _is_date(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII) and date.fromisoformat(value))


@_FORMATS.checks("time")
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(_TIME, value, re.ASCII))


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    if not isinstance(value, str):
        return True
    return value[10:11] in ("T", "t") and _is_date(value[:10]) and _is_time(value[11:])


@_FORMATS.checks("email")
def _is_email(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(r"[^@\s]+@[^@\s]+", value))


@_FORMATS.checks("uri", raises=ValueError)
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or bool(re.fullmatch(_URI, value) and urlsplit(value))


_Exact = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    validators={"multipleOf": _multiple_of, "uniqueItems": _unique_items},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"number": _is_number, "integer": _is_integer}
    ),
)
