"""rasterize: Window -> its Pages, one by one, each a page or the Failure that took its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.lake.http import is_http
from pipeline.lake.source import check_unchanged, content
from pipeline.records import Failure, FailureKind, Page, StageName, Window
from pipeline.render.renderer import Renderer

Around = Callable[[int | None], AbstractContextManager[None]]
"""What surrounds the opening of a window's document (None), and the drawing of each page."""


def _nothing(number: int | None) -> AbstractContextManager[None]:
    del number
    return nullcontext()


def rasterize(
    window: Window, renderer: Renderer, around: Around = _nothing, http_bytes: int = 0
) -> Iterator[Page | Failure]:
    """Draw a window's pages in order: exactly one `Page` or `Failure` a planned page.

    A page that fails costs itself only. A document that no longer opens, or whose bytes changed
    since it was planned, fails every page of the window. An `ItemError` of `around` is one of what
    it surrounds. `http_bytes` is the most to fetch from a web address, 0 for none.
    """
    try:
        with around(None):
            check_unchanged(window.uri, window.size, window.modified)
            found = content(window.uri, http_bytes)
            if is_http(window.uri):
                _check_content(found, window.document_id)
            n_pages = renderer.open(found).n_pages
        if n_pages != window.n_pages:
            message = f"{n_pages} pages, and {window.n_pages} when it was planned"
            raise ItemError(FailureKind.SOURCE_CHANGED, message)
    except ItemError as error:
        for _ in window.page_numbers:
            yield Failure(StageName.RASTERIZE, error.kind, error.message, error.attempt)
        return
    for number in window.page_numbers:
        try:
            with around(number):
                page = renderer.draw(number)
        except ItemError as error:
            yield Failure(StageName.RASTERIZE, error.kind, error.message, error.attempt)
        else:
            yield page


def _check_content(found: Path | bytes, document_id: str) -> None:
    """A web address tells no version that could be compared; the bytes themselves do."""
    if isinstance(found, bytes) and hashlib.sha256(found).hexdigest() != document_id:
        raise ItemError(
            FailureKind.SOURCE_CHANGED, "the address gives other bytes than when it was planned"
        )
