"""JSON Schema -> Arrow types.

==============================  ====================================================
JSON Schema (2020-12)           Arrow
==============================  ====================================================
object with properties          struct, fields in the order of the properties
array                           list
string, enum of strings         string
string, format date             date32
string, format date-time        timestamp[us, UTC]
integer                         int64
number                          float64 (the nearest; `record_json` keeps it exact)
"x-arrow": "decimal128(p, s)"   that decimal, exact or refused
boolean                         bool
anything else                   string that holds JSON text
==============================  ====================================================

"Anything else" is: objects without named properties, tuples, unions of different types, recursion,
null alone, and no type at all. A field of JSON text is marked in its Arrow metadata; a whole record
of type string is JSON text, too. Every field is nullable. Properties that the schema does not name
are kept in `record_json` only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa

from pipeline.errors import SchemaError
from pipeline.lake.json_schema import Schema, unwrap

JSON_TEXT: Mapping[bytes, bytes] = {b"pagelake.content": b"json"}
"""The metadata of an Arrow string field that holds JSON text."""

_DECIMAL = re.compile(r"decimal128\(\s*(\d+)\s*,\s*(\d+)\s*\)")


def arrow_type(schema: Schema) -> pa.DataType:
    """Return the Arrow type of the records of a schema (see the table above).

    Raises
    ------
    SchemaError
        If a `$ref` cannot be followed or an `x-arrow` annotation cannot be read.
    """
    found = _type(schema, schema, frozenset({"#"}))
    return pa.string() if found is None else found


def holds_json(field: pa.Field) -> bool:
    """Return True if a field of an `arrow_type` is a string that holds JSON text."""
    return (field.metadata or {}).items() >= JSON_TEXT.items()


def _type(schema: Any, root: Schema, open_references: frozenset[str]) -> pa.DataType | None:
    """Return a subschema's type; None stands for JSON text."""
    plain, followed = unwrap(schema, root)
    if followed & open_references:
        return None
    inside = open_references | followed
    if "x-arrow" in plain:
        return _annotated(plain["x-arrow"])
    kind = _kind(plain)
    if kind == "object":
        return _struct(plain.get("properties", {}), root, inside)
    if kind == "array":
        if "prefixItems" in plain:
            return None
        return pa.list_(_field("element", plain.get("items"), root, inside))
    if kind == "string":
        return {"date": pa.date32(), "date-time": pa.timestamp("us", "UTC")}.get(
            plain.get("format", ""), pa.string()
        )
    if kind is None:
        return _union(plain, root, inside)
    return {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}.get(kind)


def _struct(
    properties: Mapping[str, Any], root: Schema, open_references: frozenset[str]
) -> pa.DataType | None:
    if not properties:
        return None
    return pa.struct(
        [_field(name, inner, root, open_references) for name, inner in properties.items()]
    )


def _field(name: str, schema: Any, root: Schema, open_references: frozenset[str]) -> pa.Field:
    found = _type(schema, root, open_references)
    if found is None:
        return pa.field(name, pa.string(), metadata=JSON_TEXT)
    return pa.field(name, found)


def _union(plain: Schema, root: Schema, open_references: frozenset[str]) -> pa.DataType | None:
    branches = [*plain.get("anyOf", []), *plain.get("oneOf", [])]
    found = [_type(branch, root, open_references) for branch in branches]
    known = [one for one in found if one is not None]
    if not found or len(known) < len(found):
        return None
    same = all(known[0].equals(one, check_metadata=True) for one in known)
    return known[0] if same else None


def _annotated(annotation: Any) -> pa.DataType:
    match = _DECIMAL.fullmatch(str(annotation))
    if match is None:
        raise SchemaError(f'schema: x-arrow {annotation!r} is unknown; write "decimal128(12, 2)"')
    precision, scale = int(match[1]), int(match[2])
    if not 1 <= precision <= 38 or scale > precision:
        raise SchemaError(f"schema: x-arrow {annotation!r}: at most 38 digits, scale among them")
    return pa.decimal128(precision, scale)


def _kind(plain: Schema) -> str | None:
    """Return the one JSON type of a plain schema besides null, None if there is no single one."""
    stated = plain.get("type")
    if stated is not None:
        kinds = {stated} if isinstance(stated, str) else set(stated)
    elif "enum" in plain or "const" in plain:
        kinds = {_kind_of(value) for value in plain.get("enum", [plain.get("const")])}
    elif "properties" in plain:
        kinds = {"object"}
    elif "items" in plain:
        kinds = {"array"}
    else:
        return None
    kinds.discard("null")
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else None


def _kind_of(value: Any) -> str:
    names: dict[type, str] = {str: "string", bool: "boolean", int: "integer", type(None): "null"}
    names |= {Decimal: "number", float: "number"}
    return names.get(type(value), "union")
