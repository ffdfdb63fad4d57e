"""The schema of an answer that has not seen its whole document.

Such an answer need not hold every value: under the relaxed schema each property may be null and
each list empty, so that no page has to invent anything. Whatever the true schema accepts, the
relaxed one accepts too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.schema.load import Schema
from pipeline.schema.walk import LISTS, MAPS, SINGLES

_NULL = {"type": "null"}

_LOWER_BOUNDS = {"minItems", "minLength", "minProperties"}

# A relaxed schema inside one of these could forbid more than the true one does.
_CONDITIONS = {
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "propertyNames"),
    *("dependentSchemas", "dependentRequired", "unevaluatedItems", "unevaluatedProperties"),
}

_VALUES = {"properties", "patternProperties", "additionalProperties", "prefixItems"}

_OTHER_JUDGES = {"$ref", "allOf", "type", "enum", "const"}


def relax(schema: Schema) -> Mapping[str, Any]:
    """Return the relaxed document: same keys, required as before, but every value may be null.

    Conditions (if, not, contains, dependentSchemas, unevaluatedProperties and their kin) and lower
    bounds of lengths are dropped, and oneOf becomes anyOf.
    """
    relaxed: Mapping[str, Any] = _relaxed(schema.document)
    return relaxed


def _relaxed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    relaxed: dict[str, Any] = {}
    for keyword, value in _any_for_one(schema).items():
        change = _nullable if keyword in _VALUES else _relaxed
        if keyword in _LOWER_BOUNDS or keyword in _CONDITIONS:
            continue
        if keyword in MAPS:
            relaxed[keyword] = {name: change(child) for name, child in value.items()}
        elif keyword in LISTS:
            relaxed[keyword] = [change(child) for child in value]
        elif keyword in SINGLES:
            relaxed[keyword] = change(value)
        else:
            relaxed[keyword] = value
    return relaxed


def _any_for_one(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Replace oneOf by anyOf: relaxed branches overlap, and "exactly one" would then forbid."""
    if "oneOf" not in schema:
        return schema
    rest = {keyword: value for keyword, value in schema.items() if keyword != "oneOf"}
    if "anyOf" not in rest:
        return {**rest, "anyOf": schema["oneOf"]}
    return {**rest, "allOf": [*rest.get("allOf", ()), {"anyOf": schema["oneOf"]}]}


def _nullable(schema: Any) -> Any:
    relaxed = _relaxed(schema)
    if not isinstance(relaxed, dict):
        return relaxed
    if relaxed.keys() & {"$ref", "allOf", "anyOf"}:
        optional = _NULL in relaxed.get("anyOf", ()) and not relaxed.keys() & _OTHER_JUDGES
        return relaxed if optional else {"anyOf": [relaxed, _NULL]}
    if "type" in relaxed:
        types = relaxed["type"]
        relaxed["type"] = _with([types] if isinstance(types, str) else types, "null")
    if "const" in relaxed:
        relaxed["enum"] = [relaxed.pop("const")]
    if "enum" in relaxed:
        relaxed["enum"] = _with(relaxed["enum"], None)
    return relaxed


def _with(values: list[Any], value: str | None) -> list[Any]:
    return values if value in values else [*values, value]
