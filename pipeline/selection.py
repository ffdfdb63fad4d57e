"""Which pages of a document to read, as "1-3,7" or "5-"."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PageSelection:
    """Page numbers from 1, as ascending ranges that neither overlap nor touch.

    A range is (first, last), both included; last is None when the range is open.
    """

    ranges: tuple[tuple[int, int | None], ...]

    def select(self, n_pages: int) -> tuple[int, ...]:
        """Return the selected pages of a document of `n_pages`, ascending."""
        return tuple(
            number
            for first, last in self.ranges
            for number in range(first, min(n_pages, n_pages if last is None else last) + 1)
        )

    def __str__(self) -> str:
        return ",".join(
            f"{first}-" if last is None else str(first) if first == last else f"{first}-{last}"
            for first, last in self.ranges
        )


def parse_pages(text: str) -> PageSelection:
    """Read a page selection such as "1-3,7", "5-" or "-3".

    Raises ValueError with one clear line if the text is not a selection.
    """
    merged: list[tuple[int, int | None]] = []
    for first, last in sorted(map(_page_range, text.split(",")), key=lambda span: span[0]):
        before, end = merged[-1] if merged else (first, first)
        if merged and (end is None or first <= end + 1):
            merged[-1] = (before, None if end is None or last is None else max(end, last))
        else:
            merged.append((first, last))
    return PageSelection(tuple(merged))


def page_ranges(page_numbers: Iterable[int]) -> str:
    """Write ascending page numbers as a selection has them: 1, 2, 3 and 7 are "1-3,7"."""
    ranges: list[tuple[int, int]] = []
    for number in page_numbers:
        first = ranges.pop()[0] if ranges and number == ranges[-1][1] + 1 else number
        ranges.append((first, number))
    return str(PageSelection(tuple(ranges)))


def _page_range(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"\s*([0-9]{0,9})\s*(-?)\s*([0-9]{0,9})\s*", text)
    if match is None or not (match[1] or match[3]) or (match[3] and not match[2]):
        raise ValueError(f"{text.strip()!r} is not a page or range; write pages like 1-3,7 or 5-")
    first = int(match[1] or 1)
    last = int(match[3]) if match[3] else (None if match[2] else first)
    if first == 0 or last == 0:
        raise ValueError(f"{text.strip()!r}: pages count from 1")
    if last is not None and last < first:
        raise ValueError(f"{text.strip()!r} runs backwards; write {last}-{first}")
    return first, last
