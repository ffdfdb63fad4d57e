"""Whether a document is a schema that can be decoded, validated and stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError as MetaschemaError

from pipeline.errors import SchemaError
from pipeline.schema.walk import children, descendants, pointer, resolve

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MAX_SCHEMAS = 20_000
"""Schemas inside a schema, each counted as often as it is referred to."""

_REGEX = FormatChecker(formats=["regex"])
_ANNOTATIONS = {"title", "description", "$id", "$schema", "$comment", "$defs", "definitions"}
_ELSEWHERE = {"properties", "patternProperties", "additionalProperties", "items", "prefixItems"} | {
    *("$defs", "definitions", "contains", "propertyNames", "unevaluatedItems"),
    *("unevaluatedProperties", "contentSchema"),
}
"""Keywords whose schemas judge another place than the schema they stand in."""


def check(document: Any, where: str) -> None:
    """Raise SchemaError, naming `where`, the JSON pointer and the mend, if it cannot be used."""
    if not isinstance(document, Mapping):
        raise SchemaError(f"{where}: #: a schema is a JSON object, such as {{'type': 'object'}}")
    dialect = document.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT:
        raise SchemaError(f"{where}: #/$schema: {dialect!r} is not supported; use {DIALECT}")
    try:
        Draft202012Validator.check_schema(document, format_checker=_REGEX)
    except MetaschemaError as error:
        raise SchemaError(f"{where}: {pointer(tuple(error.path))}: {_explain(error)}") from None
    for keys, schema in descendants(document):
        if isinstance(schema, Mapping):
            _check_references(document, schema, keys, where)
    _check_size(document, where)
    _check_loops(document, where)
    _check_top(hoisted(document), where)


def hoisted(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the document with a reference at its top replaced by what it points at.

    Pydantic writes a recursive model as {"$ref": "#/$defs/Node", "$defs": ...}.
    """
    if "$ref" not in document or not document.keys() - {"$ref"} <= _ANNOTATIONS:
        return document
    target = resolve(document, document["$ref"])
    rest = {key: value for key, value in document.items() if key != "$ref"}
    return hoisted({**target, **rest}) if isinstance(target, Mapping) else document


def _explain(error: MetaschemaError) -> str:
    if error.path and error.path[-1] == "type":
        types = "array, boolean, integer, null, number, object or string"
        return f"{error.instance!r} is not a type; use {types}"
    if error.validator == "format":
        return f"{error.instance!r} is not a regular expression; mend it"
    return f"{error.message}; see {DIALECT}"


def _check_references(
    document: Mapping[str, Any], schema: Mapping[str, Any], keys: tuple[str, ...], where: str
) -> None:
    for keyword in ("$dynamicRef", "$recursiveRef"):
        if keyword in schema:
            place = pointer((*keys, keyword))
            raise SchemaError(f"{where}: {place}: {keyword} is not supported; use $ref")
    if keys and "$id" in schema:
        place = pointer((*keys, "$id"))
        raise SchemaError(f"{where}: {place}: only the top may have an $id; remove it")
    if "$ref" not in schema:
        return
    place, ref = pointer((*keys, "$ref")), schema["$ref"]
    if not ref.startswith("#"):
        raise SchemaError(f"{where}: {place}: {ref!r} is in another file; copy it into $defs")
    try:
        resolve(document, ref)
    except LookupError:
        raise SchemaError(
            f"{where}: {place}: {ref!r} leads nowhere; point at # or #/$defs/NAME"
        ) from None


def _check_size(document: Mapping[str, Any], where: str) -> None:
    """Refuse references to references that unfold to millions: prompt and tables unfold them."""
    sizes: dict[int, int] = {}

    def unfolded(schema: Any) -> int:
        if id(schema) not in sizes:
            sizes[id(schema)] = 1  # while under way: recursion is not unfolded
            size = 1 + sum(unfolded(child) for _, child in children(schema))
            if isinstance(schema, Mapping) and "$ref" in schema:
                size += unfolded(resolve(document, schema["$ref"]))
            sizes[id(schema)] = size
        return sizes[id(schema)]

    if unfolded(document) > MAX_SCHEMAS:
        raise SchemaError(f"{where}: #: unfolds to over {MAX_SCHEMAS:,} schemas; use fewer $ref")


def _check_loops(document: Mapping[str, Any], where: str) -> None:
    """Refuse a reference that comes back to itself at the same place: it would never end."""
    for keys, schema in descendants(document):
        pending = list(_references_in_place(schema))
        seen: set[str] = set()
        while pending:
            ref = pending.pop()
            if ref in seen:
                continue
            seen.add(ref)
            target = resolve(document, ref)
            if target is schema:
                raise SchemaError(f"{where}: {pointer(keys)}: {ref!r} refers to itself; remove it")
            pending.extend(_references_in_place(target))


def _references_in_place(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping) and "$ref" in schema:
        yield schema["$ref"]
    for keys, child in children(schema):
        if keys[0] not in _ELSEWHERE:
            yield from _references_in_place(child)


def _check_top(document: Mapping[str, Any], where: str) -> None:
    if document.get("type") != "object":
        raise SchemaError(f'{where}: #/type: the top must be an object; add "type": "object"')
    if not document.get("properties"):
        raise SchemaError(f"{where}: #/properties: the object has no fields; name at least one")
