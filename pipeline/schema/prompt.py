"""The instructions that a model gets when the job gives none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.schema.load import Schema
from pipeline.schema.walk import resolve

_FORMATS = {
    "date": "date as YYYY-MM-DD",
    "time": "time as HH:MM:SS and offset",
    "date-time": "date and time as YYYY-MM-DDTHH:MM:SS and offset",
    "email": "email address",
    "uri": "URI",
}
_BRANCHES = ("anyOf", "oneOf", "allOf")


def default_prompt(schema: Schema, *, pages: bool = False) -> str:
    """Write instructions from the schema's titles and descriptions, one line a field.

    Nested fields have dotted paths; a field of list items is written `items[].name`. The
    instructions speak of one page, or with `pages` of several.
    """
    top = _Node(schema.document, schema.document)
    about = top.about().rstrip(".")
    the, state, do = (
        ("the pages", "state", "they do") if pages else ("the page", "states", "it does")
    )
    return "\n".join(
        [
            f"Read {the} and answer with one JSON object" + (f": {about}." if about else "."),
            "Fields:",
            *top.field_lines(""),
            f"Write values as {the} {state} them, null for what {do} not say, "
            "and [] for an empty list. Answer with the JSON only.",
        ]
    )


@dataclass(frozen=True)
class _Node:
    """A schema inside a document, and the references that led to it from the top."""

    document: Mapping[str, Any]
    schema: Mapping[str, Any]
    trail: tuple[str, ...] = ()

    def about(self, name: str = "") -> str:
        """Return title and description on one line, without a title that only repeats the name."""
        title = self.schema.get("title", "")
        if title.lower().replace(" ", "_") == name.lower():
            title = ""
        parts = (title, self.schema.get("description", ""))
        return " ".join(": ".join(part for part in parts if part).split())

    @property
    def branches(self) -> list[_Node]:
        """What the value may be instead of null, if the schema leaves a choice."""
        found = [branch for key in _BRANCHES for branch in self.schema.get(key, ())]
        return [self._inner(branch) for branch in found if branch != {"type": "null"}]

    @property
    def items(self) -> _Node | None:
        items = self.schema.get("items")
        return self._inner(items) if isinstance(items, Mapping) else None

    def field_lines(self, path: str) -> Iterator[str]:
        for name, schema in self.schema.get("properties", {}).items():
            yield from self._inner(schema)._lines(f"{path}.{name}" if path else name, name)
        for branch in self.branches:
            yield from branch.field_lines(path)

    def _lines(self, path: str, name: str) -> Iterator[str]:
        kind, about = self._kind(), self.about(name)
        yield f"- {path}" + (f" ({kind})" if kind else "") + (f": {about}" if about else "")
        yield from self.field_lines(path)
        for node in (self, *self.branches):
            if node.items is not None:
                yield from node.items.field_lines(f"{path}[]")

    def _inner(self, schema: Any) -> _Node:
        """Follow references, and a branch that is the only one, keeping what is said beside it."""
        node = replace(self, schema=schema if isinstance(schema, Mapping) else {})
        ref = node.schema.get("$ref")
        if ref in self.trail:  # recursion: these fields are listed already
            return replace(node, schema={"type": "object", **_without(node.schema, "$ref")})
        if ref is not None:
            target = resolve(self.document, ref)
            node = replace(node, trail=(*self.trail, ref))
            return node._inner({**target, **_without(node.schema, "$ref")})
        if len(node.branches) == 1:
            branch = node.branches[0]
            return replace(branch, schema={**branch.schema, **_without(node.schema, *_BRANCHES)})
        return node

    def _kind(self) -> str:
        """Say what JSON value the field holds, such as "number" or "list of string"."""
        if "const" in self.schema or "enum" in self.schema:
            values = self.schema.get("enum", [self.schema.get("const")])
            texts = [json.dumps(value, ensure_ascii=False) for value in values if value is not None]
            return texts[0] if len(texts) == 1 else "one of " + ", ".join(texts)
        types = self.schema.get("type", [])
        names = [types] if isinstance(types, str) else types
        kinds = [self._type_name(name) for name in names if name != "null"]
        kinds = kinds or [branch._kind() for branch in self.branches]
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))

    def _type_name(self, name: str) -> str:
        if name == "array":
            item = self.items._kind() if self.items is not None else ""
            return f"list of {item}" if item else "list"
        written = self.schema.get("format")
        return _FORMATS.get(written, written) if name == "string" and written else name


def _without(schema: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in keys}
