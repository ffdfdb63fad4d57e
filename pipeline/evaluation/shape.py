"""What the records of a schema look like to the comparison: objects, lists and typed leaves.

Types are those of the tables (`pipeline.lake.types`), so what is stored as a decimal is compared as
a number, and what is stored as JSON text is compared as JSON.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa

from pipeline.lake.types import arrow_type, holds_json


class Kind(StrEnum):
    """The type of a leaf."""

    STRING = "string"
    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    DATE = "date"
    DATE_TIME = "date-time"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Leaf:
    """One value."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Object:
    """Named values. An object that is null is one whose values are all null."""

    fields: Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class List:
    """Any number of items of one shape. A list that is null is one without items."""

    item: Shape


Shape = Leaf | Object | List


@dataclass(frozen=True, slots=True)
class RecordShape:
    """The shape of a schema's records, with every leaf's type and every list, by path.

    Paths are such as "total", "items[].price" and "items", in the schema's order.
    """

    root: Shape
    leaves: Mapping[str, Kind]
    lists: tuple[str, ...]


def record_shape(schema: Mapping[str, Any]) -> RecordShape:
    """Return the shape of a JSON Schema's records.

    Raises
    ------
    SchemaError
        If a `$ref` cannot be followed or an `x-arrow` annotation cannot be read.
    """
    found = arrow_type(schema)
    root = Leaf(Kind.JSON) if pa.types.is_string(found) else _shape(pa.field("record", found))
    return RecordShape(root, dict(_leaves(root, "")), tuple(_lists(root, "")))


def join(path: str, name: str) -> str:
    """Return the path of a named value inside the object at `path`."""
    return f"{path}.{name}" if path else name


def restricted(shape: Shape, value: Any) -> Any:
    """Return a record without the keys that the schema does not name."""
    match shape:
        case Object(fields) if isinstance(value, dict):
            return {
                name: restricted(child, value[name])
                for name, child in fields.items()
                if name in value
            }
        case List(item) if isinstance(value, list):
            return [restricted(item, element) for element in value]
    return value


def unknown_keys(shape: Shape, value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of the keys that `restricted` leaves out, as often as they occur."""
    match shape:
        case Object(fields) if isinstance(value, dict):
            for name, inner in value.items():
                if name in fields:
                    yield from unknown_keys(fields[name], inner, join(path, name))
                else:
                    yield join(path, name)
        case List(item) if isinstance(value, list):
            for element in value:
                yield from unknown_keys(item, element, f"{path}[]")


def _leaves(shape: Shape, path: str) -> Iterator[tuple[str, Kind]]:
    match shape:
        case Leaf(kind):
            yield path or "record", kind
        case Object(fields):
            for name, child in fields.items():
                yield from _leaves(child, join(path, name))
        case List(item):
            yield from _leaves(item, f"{path}[]")


def _lists(shape: Shape, path: str) -> Iterator[str]:
    match shape:
        case Object(fields):
            for name, child in fields.items():
                yield from _lists(child, join(path, name))
        case List(item):
            yield path
            yield from _lists(item, f"{path}[]")


def _shape(field: pa.Field) -> Shape:
    type_ = field.type
    if pa.types.is_struct(type_):
        return Object({inner.name: _shape(inner) for inner in type_})
    if pa.types.is_list(type_):
        return List(_shape(type_.value_field))
    if holds_json(field):
        return Leaf(Kind.JSON)
    if pa.types.is_decimal(type_):
        return Leaf(Kind.NUMBER)
    plain: dict[pa.DataType, Kind] = {
        pa.string(): Kind.STRING,
        pa.int64(): Kind.INTEGER,
        pa.float64(): Kind.NUMBER,
        pa.bool_(): Kind.BOOLEAN,
        pa.date32(): Kind.DATE,
        pa.timestamp("us", "UTC"): Kind.DATE_TIME,
    }
    return Leaf(plain[type_])
