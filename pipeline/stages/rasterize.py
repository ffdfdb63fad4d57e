"""rasterize: Window -> its Pages, one by one, each a page or the Failure that took its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.lake.source import Source
from pipeline.records import Failure, FailureKind, Page, StageName, Window
from pipeline.render.renderer import Renderer

Around = Callable[[int | None], AbstractContextManager[None]]
"""What surrounds the opening of a window's document (None), and the drawing of each page."""

_Version = tuple[str, str, int, str]


def _nothing(number: int | None) -> AbstractContextManager[None]:
    del number
    return nullcontext()


class OpenDocument:
    """The document of a window, which stays open for the windows of it that come next."""

    def __init__(self, renderer: Renderer, source: Source = Source()) -> None:
        self._renderer = renderer
        self._source = source
        self._open: tuple[_Version, int] | None = None

    def open(self, window: Window) -> int:
        """Make sure that a window's document is open and as planned; return how many pages it has.

        Raises ItemError if it does not open, or changed since it was planned or opened.
        """
        version = (window.document_id, window.uri, window.size, window.modified)
        last, self._open = self._open, None
        self._source.check_unchanged(window.uri, window.size, window.modified)
        if last is not None and last[0] == version:
            n_pages = last[1]
        else:
            found = self._source.content(window.uri)
            if isinstance(found, bytes):
                _check_content(found, window.document_id)
            n_pages = self._renderer.open(found).n_pages
        self._open = version, n_pages
        return n_pages

    def draw(self, number: int) -> Page:
        """Draw a page of the open document; see `Renderer.draw`."""
        return self._renderer.draw(number)


def rasterize(
    window: Window, document: OpenDocument, around: Around = _nothing
) -> Iterator[Page | Failure]:
    """Draw a window's pages in order: exactly one `Page` or `Failure` a planned page.

    A page that fails costs itself only. A document that no longer opens, or whose bytes changed
    since it was planned, fails every page of the window. An `ItemError` of `around` is one of what
    it surrounds.
    """
    try:
        with around(None):
            n_pages = document.open(window)
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
                page = document.draw(number)
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
