"""Reading a JSON Schema (2020-12): what a subschema says, references and nulls set aside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import SchemaError

Schema = Mapping[str, Any]

_ALTERNATIVES = ("anyOf", "oneOf")


def unwrap(schema: Any, root: Schema) -> tuple[Schema, frozenset[str]]:
    """Return a subschema in plain form, and the references that were followed to get it.

    Local `$ref`s are replaced by what they point at, `allOf` is folded in, and an `anyOf` or
    `oneOf` that leaves one branch besides null becomes that branch. A boolean schema becomes the
    empty one. What is left of `anyOf` and `oneOf` has several branches.

    Raises
    ------
    SchemaError
        If a reference is not local ("#/..."), points nowhere, or leads back to itself.
    """
    plain: Schema = schema if isinstance(schema, Mapping) else {}
    followed: set[str] = set()
    while "$ref" in plain:
        reference = plain["$ref"]
        if reference in followed:
            raise SchemaError(
                f"schema: $ref {reference!r} leads back to itself; point it at a type"
            )
        followed.add(reference)
        plain = _overlay(_look_up(reference, root), _without(plain, "$ref"))
    branches = plain.get("allOf", [])
    plain = _without(plain, "allOf")
    for keyword in _ALTERNATIVES:
        stated = [branch for branch in plain.get(keyword, []) if not _is_null(branch)]
        if len(stated) == 1:
            plain = _without(plain, keyword)
            branches = [*branches, stated[0]]
    for branch in branches:
        inner, references = unwrap(branch, root)
        plain = _overlay(inner, plain)
        followed |= references
    return plain, frozenset(followed)


def without_unstated(value: Any, schema: Any, root: Schema) -> Any:
    """Return a record without the null properties that its schema does not require.

    Pages are read against a schema in which every property may be null, so "no page says" comes
    out as null; the true schema says the same by leaving the property out.
    """
    if value is None or isinstance(value, (str, bool)):
        return value
    plain, _ = unwrap(schema, root)
    if isinstance(value, Mapping):
        properties = plain.get("properties", {})
        optional = properties.keys() - set(plain.get("required", ()))
        return {
            key: without_unstated(item, properties.get(key), root)
            for key, item in value.items()
            if item is not None or key not in optional
        }
    if isinstance(value, list):
        return [without_unstated(item, plain.get("items"), root) for item in value]
    return value


def _look_up(reference: str, root: Schema) -> Schema:
    if reference != "#" and not reference.startswith("#/"):
        raise SchemaError(f"schema: $ref {reference!r} is not local; move its target under $defs")
    target: Any = root
    for step in reference.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping) and key in target:
            target = target[key]
        elif isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            target = target[int(key)]
        else:
            raise SchemaError(f"schema: $ref {reference!r} points at nothing; define it")
    return target if isinstance(target, Mapping) else {}


def _overlay(base: Schema, top: Schema) -> Schema:
    """Lay one schema over another; both ask for their properties, else the top one's word holds."""
    merged = {**base, **top}
    if "properties" in base and "properties" in top:
        merged["properties"] = {**base["properties"], **top["properties"]}
    if "required" in base and "required" in top:
        merged["required"] = [*base["required"], *top["required"]]
    return merged


def _without(schema: Schema, keyword: str) -> Schema:
    return {key: value for key, value in schema.items() if key != keyword}


def _is_null(branch: Any) -> bool:
    if not isinstance(branch, Mapping):
        return False
    return (
        branch.get("type") in ("null", ["null"])
        or branch.get("enum") == [None]
        or ("const" in branch and branch["const"] is None)
    )
