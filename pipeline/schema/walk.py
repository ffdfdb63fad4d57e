"""The shape of JSON Schema: which keywords hold schemas, and where references lead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords that hold schemas by name."""

LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
"""Keywords that hold a list of schemas."""

SINGLES = (
    *("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"),
    *("unevaluatedItems", "unevaluatedProperties", "contentSchema"),
)
"""Keywords that hold one schema."""


def children(schema: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the schemas directly inside `schema`, each with its keys from there."""
    if not isinstance(schema, Mapping):
        return
    for keyword, value in schema.items():
        if keyword in MAPS:
            yield from (((keyword, name), child) for name, child in value.items())
        elif keyword in LISTS:
            yield from (((keyword, str(index)), child) for index, child in enumerate(value))
        elif keyword in SINGLES:
            yield (keyword,), value


def descendants(schema: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield `schema` and every schema inside it, each with its keys from the top."""
    yield at, schema
    for keys, child in children(schema):
        yield from descendants(child, (*at, *keys))


def resolve(document: Mapping[str, Any], ref: str) -> Any:
    """Return the schema that "#", "#/$defs/Name" or "#/definitions/Name" stands for.

    Raises LookupError if `ref` is of another form, or there is no such definition.
    """
    if ref == "#":
        return document
    match = re.fullmatch(r"#/(\$defs|definitions)/([^/]+)", unquote(ref))
    if match is None:
        raise LookupError(ref)
    return document[match[1]][match[2].replace("~1", "/").replace("~0", "~")]


def pointer(keys: tuple[str | int, ...]) -> str:
    """Return a JSON pointer (RFC 6901) as a URI fragment, such as "#/properties/total"."""
    return "#" + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)
