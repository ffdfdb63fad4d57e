"""plan: Document -> Plan, and Plans -> Shards. Hashes and counts before a pixel is drawn.

The plan is the independent count that the finished tables are checked against (law 1).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.lake.source import Source
from pipeline.records import Document, Failure, FailureKind, Plan, Shard, StageName, Window
from pipeline.render.renderer import Renderer
from pipeline.selection import PageSelection

PAGES_PER_SHARD = 16
"""Enough work to hide a task's overhead, little enough to lose; about 8 MB of packed tiles."""

_BLOCK = 1 << 20


def plan(
    document: Document,
    renderer: Renderer,
    selection: PageSelection | None,
    max_pages: int,
    source: Source = Source(),
) -> Plan:
    """Hash one document, count its pages in the renderer's child, and select pages.

    Never raises for the document's own faults: they are the plan's `failure`.
    """
    document_id: str | None = None
    try:
        source.check_unchanged(document.uri, document.size, document.modified)
        found = source.content(document.uri)
        document_id = _sha256(found)
        n_pages = renderer.open(found).n_pages
    except ItemError as error:
        failure = Failure(StageName.DISCOVER, error.kind, error.message)
        return Plan(document, document_id, None, failure=failure)
    page_numbers, complaint = select_pages(n_pages, selection, max_pages)
    return Plan(document, document_id, n_pages, page_numbers, complaint)


def select_pages(
    n_pages: int, selection: PageSelection | None, max_pages: int
) -> tuple[tuple[int, ...], Failure | None]:
    """Return the pages to read of a document that opens, or none and why: reads nothing itself."""
    if selection is None:
        page_numbers = tuple(range(1, min(n_pages, max_pages + 1) + 1))
    else:
        page_numbers = selection.select(n_pages)
    if len(page_numbers) > max_pages:
        return (), Failure(
            StageName.DISCOVER,
            FailureKind.TOO_MANY_PAGES,
            f"{n_pages} pages, and input.max_pages is {max_pages}",
        )
    if not page_numbers:
        return (), Failure(
            StageName.DISCOVER,
            FailureKind.EMPTY,
            f"input.pages selects none of {n_pages} pages",
        )
    return page_numbers, None


def _sha256(found: Path | bytes) -> str:
    digest = hashlib.sha256()
    if isinstance(found, bytes):
        digest.update(found)
        return digest.hexdigest()
    try:
        with found.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise ItemError(FailureKind.SOURCE_MISSING, error.strerror or "cannot be read") from error
    return digest.hexdigest()


def shards(
    work: Iterable[tuple[Plan, tuple[int, ...]]], pages_per_sample: int | None = None
) -> Iterator[Shard]:
    """Cut plans into windows, and pack windows into shards of at most `PAGES_PER_SHARD` pages.

    Each plan comes with those of its pages that are still to do. The packing depends on nothing
    but their order, so the same work gives the same shards. With `pages_per_sample` a window is
    what one sample is made of: a plan's pages are counted off by so many, whatever of them is
    still to do. A window with more pages than a shard may have is a shard by itself.
    """
    windows: list[Window] = []
    room = PAGES_PER_SHARD
    for item, todo in work:
        if item.failure is not None or item.document_id is None or item.n_pages is None:
            continue
        while todo:
            taken = min(room, len(todo))
            if pages_per_sample is not None:
                taken = _of_first_sample(item.page_numbers, todo, pages_per_sample)
            if taken > room and windows:
                yield Shard(tuple(windows))
                windows, room = [], PAGES_PER_SHARD
            windows.append(
                Window(
                    document_id=item.document_id,
                    uri=item.document.uri,
                    size=item.document.size,
                    modified=item.document.modified,
                    n_pages=item.n_pages,
                    page_numbers=todo[:taken],
                    source=item.document.source,
                )
            )
            todo, room = todo[taken:], room - taken
            if room <= 0:
                yield Shard(tuple(windows))
                windows, room = [], PAGES_PER_SHARD
    if windows:
        yield Shard(tuple(windows))


def _of_first_sample(planned: Sequence[int], todo: Sequence[int], pages_per_sample: int) -> int:
    """Return how many pages to do belong to the first one's sample. Both are ascending."""
    sample = bisect_left(planned, todo[0]) // pages_per_sample
    behind = planned[(sample + 1) * pages_per_sample :][:1]
    return bisect_left(todo, behind[0]) if behind else len(todo)
