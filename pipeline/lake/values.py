"""JSON values -> what the types of `pipeline.lake.types` hold: exactly, or not at all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any

import pyarrow as pa

from pipeline.errors import ItemError
from pipeline.lake.exact_json import dumps
from pipeline.lake.types import holds_json
from pipeline.records import FailureKind

Convert = Callable[[Any], Any]

_INT64 = 2**63
_DATE_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6}0*)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII
)


def to_arrow(value: Any, type_: pa.DataType) -> Any:
    """Return a record as pyarrow takes it for a type of `arrow_type`.

    Nothing is rounded but `number`, to the nearest float64.

    Raises
    ------
    ItemError
        `schema_violation` if the value does not fit; the message names the place.
    """
    return converter(type_)(value)


def converter(type_: pa.DataType) -> Convert:
    """Compile `to_arrow` for one type, for use on many records."""
    inner = _json_text if pa.types.is_string(type_) else _converter(type_)
    return _guard(inner, "record")


def _converter(type_: pa.DataType) -> Convert:
    if pa.types.is_struct(type_):
        return _struct_converter(type_)
    if pa.types.is_list(type_):
        return _list_converter(type_)
    if pa.types.is_decimal(type_):
        return _decimal_converter(type_)
    plain: dict[pa.DataType, Convert] = {
        pa.string(): _string,
        pa.date32(): _date,
        pa.timestamp("us", "UTC"): _date_time,
        pa.int64(): _integer,
        pa.float64(): _number,
        pa.bool_(): _boolean,
    }
    return plain[type_]


def _field_converter(field: pa.Field) -> Convert:
    if holds_json(field):
        return _json_text
    return _converter(field.type)


def _struct_converter(type_: pa.DataType) -> Convert:
    fields = [(field.name, _guard(_field_converter(field), field.name)) for field in type_]

    def convert(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise _misfit(value, "is not an object")
        return {name: inner(value.get(name)) for name, inner in fields}

    return convert


def _list_converter(type_: pa.DataType) -> Convert:
    inner = _guard(_field_converter(type_.value_field), "[]")

    def convert(value: Any) -> Any:
        if not isinstance(value, list):
            raise _misfit(value, "is not an array")
        return [inner(item) for item in value]

    return convert


def _guard(convert: Convert, name: str) -> Convert:
    """Let null through, and put the place's name before a complaint from inside."""

    def guarded(value: Any) -> Any:
        if value is None:
            return None
        try:
            return convert(value)
        except ItemError as error:
            joint = "" if error.message.startswith((": ", "[]")) else "."
            raise ItemError(error.kind, f"{name}{joint}{error.message}") from None

    return guarded


def _decimal_converter(type_: pa.DataType) -> Convert:
    unit = Decimal(1).scaleb(-type_.scale)
    context = Context(prec=type_.precision, traps=[Inexact, InvalidOperation])

    def convert(value: Any) -> Decimal:
        if isinstance(value, (bool, float)) or not isinstance(value, (int, Decimal, str)):
            raise _misfit(value, "is not an exact number")
        try:
            return Decimal(value).quantize(unit, context=context)
        except (InvalidOperation, Inexact):
            raise _misfit(value, f"does not fit {type_} exactly") from None

    return convert


def _integer(value: Any) -> int:
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < 20:
        whole = int(value)
        value = whole if whole == value else value
    if isinstance(value, bool) or not isinstance(value, int):
        raise _misfit(value, "is not an integer")
    if not -_INT64 <= value < _INT64:
        raise _misfit(value, "does not fit int64")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise _misfit(value, "is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if number in (float("inf"), float("-inf")) or number != number:
        raise _misfit(value, "does not fit float64")
    return number


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _misfit(value, "is not true or false")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _misfit(value, "is not a string")
    return _encodable(value)


def _json_text(value: Any) -> str:
    try:
        return _encodable(dumps(value))
    except (TypeError, ValueError) as error:
        raise _misfit(value, f"has no JSON form ({error})") from None


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _misfit(text, "has half of a surrogate pair, which UTF-8 cannot hold") from None
    return text


def _date(value: Any) -> date:
    try:
        found = date.fromisoformat(_string(value))
        if found.isoformat() == value:
            return found
    except ValueError:
        pass
    raise _misfit(value, "is not a date (YYYY-MM-DD)")


def _date_time(value: Any) -> datetime:
    if _DATE_TIME.fullmatch(_string(value)):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise _misfit(value, "is not a date-time with an offset, in microseconds at most")


def _misfit(value: Any, complaint: str) -> ItemError:
    shown = ascii(value) if isinstance(value, str) else ascii(str(value))[1:-1]
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return ItemError(FailureKind.SCHEMA_VIOLATION, f": {shown} {complaint}")
