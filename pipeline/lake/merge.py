"""One record out of the records of a document's pages.

The first page that states a value (anything but null) has the say. Objects are merged property by
property and lists are joined in page order. A later page that states a different scalar is a
conflict: reported, never guessed about. A path is the property names with dots between them, and
`items[3]` for an element of a list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Stated = Sequence[tuple[int, Any]]
"""(page number, value) in page order."""

PAGE_BREAK = "\f"
"""Form feed: between the pages of a joined text."""


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged record; `conflicts` and `field_pages` as in `DocumentResult`."""

    record: Any = None
    conflicts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    field_pages: dict[str, int] = field(default_factory=dict)


def merge_records(stated: Stated, joined: frozenset[str] = frozenset()) -> Merged:
    """Merge the records of pages, in page order; None stands for a page without one.

    Text of the top-level properties in `joined` is not "first stated" but joined with
    `PAGE_BREAK`: the n-th piece is the n-th page's (of several in one prompt: the n-th prompt's),
    empty if the page has none.
    """
    merged = Merged()
    texts = {name: _join(stated, name) for name in joined}
    rest = [(page, _without(record, joined)) for page, record in stated]
    record = _value("", rest, merged)
    if isinstance(record, Mapping):
        record = {**texts, **record}
    return Merged(record, merged.conflicts, merged.field_pages)


def _value(path: str, stated: Stated, merged: Merged) -> Any:
    said = [(page, value) for page, value in stated if value is not None]
    if not said:
        return None
    if all(isinstance(value, Mapping) for _, value in said):
        return _object(path, said, merged)
    if all(isinstance(value, list) for _, value in said):
        return _list(path, said, merged)
    return _first(path, said, merged)


def _object(path: str, said: Stated, merged: Merged) -> dict[str, Any]:
    names = dict.fromkeys(name for _, value in said for name in value)
    return {
        name: _value(
            f"{path}.{name}" if path else name,
            [(page, value.get(name)) for page, value in said],
            merged,
        )
        for name in names
    }


def _list(path: str, said: Stated, merged: Merged) -> list[Any]:
    elements = [(page, element) for page, value in said for element in value]
    for index, (page, _) in enumerate(elements):
        merged.field_pages[f"{path}[{index}]"] = page
    return [element for _, element in elements]


def _first(path: str, said: Stated, merged: Merged) -> Any:
    first_page, first = said[0]
    merged.field_pages[path] = first_page
    others = [{"page": page, "value": value} for page, value in said if not _same(first, value)]
    if others:
        merged.conflicts[path] = others
    return first


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 is 1.0, and true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _join(stated: Stated, name: str) -> str | None:
    pieces = [record.get(name) if isinstance(record, Mapping) else None for _, record in stated]
    if all(piece is None for piece in pieces):
        return None
    return PAGE_BREAK.join("" if piece is None else str(piece) for piece in pieces)


def _without(record: Any, names: frozenset[str]) -> Any:
    if not names or not isinstance(record, Mapping):
        return record
    return {name: value for name, value in record.items() if name not in names}
