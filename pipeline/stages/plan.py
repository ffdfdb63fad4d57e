"""plan: Document -> Plan, and Plans -> Shards. Hashes and counts before a pixel is drawn.

The plan is the independent count that the finished tables are checked against (law 1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.lake.source import check_unchanged, content
from pipeline.records import Document, Failure, FailureKind, Plan, Shard, StageName, Window
from pipeline.render.renderer import Renderer
from pipeline.selection import PageSelection

PAGES_PER_SHARD = 16
"""Enough work to hide a task's overhead, little enough to lose; about 8 MB of packed tiles."""

_BLOCK = 1 << 20


def plan(
    document: Document, renderer: Renderer, selection: PageSelection | None, max_pages: int
) -> Plan:
    """Hash one document, count its pages in the renderer's child, and select pages.

    Never raises for the document's own faults: they are the plan's `failure`.
    """
    document_id: str | None = None
    try:
        check_unchanged(document.uri, document.size, document.modified)
        found = content(document.uri)
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


def shards(work: Iterable[tuple[Plan, tuple[int, ...]]]) -> Iterator[Shard]:
    """Cut plans into windows, and pack windows into shards of at most `PAGES_PER_SHARD` pages.

    Each plan comes with those of its pages that are still to do. The packing depends on nothing
    but their order, so the same work gives the same shards.
    """
    windows: list[Window] = []
    room = PAGES_PER_SHARD
    for item, todo in work:
        if item.failure is not None or item.document_id is None or item.n_pages is None:
            continue
        while todo:
            windows.append(
                Window(
                    document_id=item.document_id,
                    uri=item.document.uri,
                    size=item.document.size,
                    modified=item.document.modified,
                    n_pages=item.n_pages,
                    page_numbers=todo[:room],
                    source=item.document.source,
                )
            )
            taken = len(windows[-1].page_numbers)
            todo, room = todo[taken:], room - taken
            if room == 0:
                yield Shard(tuple(windows))
                windows, room = [], PAGES_PER_SHARD
    if windows:
        yield Shard(tuple(windows))
