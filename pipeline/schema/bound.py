"""The schema of an answer whose lists must end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.schema.walk import LISTS, MAPS, SINGLES


def bound_lists(schema: Any, most: int) -> Any:
    """Return the schema with lists of `most` items at most, or of as many as it asks for at least.

    A model that writes the same item again and again then leaves the list, instead of filling its
    whole budget of tokens. Applies to what says `array`, and to what describes items, unless its
    values are listed.
    """
    if not isinstance(schema, Mapping):
        return schema
    bounded: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in MAPS:
            bounded[keyword] = {name: bound_lists(child, most) for name, child in value.items()}
        elif keyword in LISTS:
            bounded[keyword] = [bound_lists(child, most) for child in value]
        elif keyword in SINGLES:
            bounded[keyword] = bound_lists(value, most)
        else:
            bounded[keyword] = value
    if "enum" in schema or "const" in schema:
        return bounded  # these say what there may be
    types = schema.get("type", ())
    if "array" in ([types] if isinstance(types, str) else types) or "items" in schema:
        limit = max(most, schema.get("minItems", 0))
        bounded["maxItems"] = min(schema.get("maxItems", limit), limit)
    return bounded
