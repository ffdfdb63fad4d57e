"""Documents to pages, whatever the documents do."""

from __future__ import annotations

import math
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from pipeline.errors import ItemError, JobError
from pipeline.models.base import PlanPage
from pipeline.records import FailureKind, MediaType, Page, Word
from pipeline.render.media import read_media_type
from pipeline.render.messages import (
    Draw,
    Drawn,
    Measure,
    Measured,
    Open,
    Opened,
    RendererName,
    TextLayer,
)
from pipeline.render.process import START_S, Budget, RenderLimits, RenderProcess
from pipeline.render.shared import Canvas, SharedFile

# What pdfium leaks over documents is bounded by starting afresh.
_DOCUMENTS_A_PROCESS = 500
# And what pdfium keeps of the pages of one, 70 KB each, by opening it anew.
_PAGES_AN_OPENING = 32
_LEAST_MEMORY_LEFT = 0.5


class RenderSettings(RenderLimits, Protocol):
    """How to render: the limits, and which renderer draws PDF pages."""

    @property
    def renderer(self) -> RendererName:
        """The first renderer to try."""


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """What opening a document tells."""

    n_pages: int
    media_type: MediaType


@dataclass(frozen=True, slots=True)
class _Document:
    """The open document, and the ways to draw it that are left, best first."""

    path: str
    media_type: MediaType
    n_pages: int
    ways: tuple[_Way, ...]


@dataclass(frozen=True, slots=True)
class _Way:
    """A rung of the ladder: who opens the document, with its forms or not, and who draws it."""

    reader: RendererName
    forms: bool
    renderer: RendererName


_FORMS = _Way("pdfium", True, "pdfium")
_NO_FORMS = _Way("pdfium", False, "pdfium")
_DRAWN_BY_POPPLER = _Way("pdfium", False, "poppler")
_POPPLER = _Way("poppler", False, "poppler")


def longest_s(limits: RenderLimits) -> float:
    """Return the seconds that opening a document, or drawing a page of it, may take at most.

    That is the budgets of a page's tries (see `Renderer`), and a new process for each of them.
    """
    return 6 * limits.wall_s + 4 * START_S


class Renderer:
    """Draws the pages of one document at a time, in one long-lived process with limits.

    A page that crashes the process, or overruns its time or memory, costs itself; the process is
    started again for the next. A PDF page is tried in up to three ways: pdfium with the document's
    forms, pdfium without, and poppler, which opens the document too, if it is installed. The same
    holds for opening a document, and pages are drawn in no way that did not open it.

    Each try may take `cpu_s` and `wall_s`, and as much again if the process is gone and must open
    the document anew. So a page that hangs in every way costs three times the limits, and six
    times in documents that take as long to open. A page whose image is drawn is never lost for its
    text layer: when that cannot be read within what is left, the page has no words.

    Not thread-safe.
    """

    def __init__(
        self, settings: RenderSettings, plan_page: PlanPage, password: str | None = None
    ) -> None:
        """`plan_page` sets the size of each page; `password` opens encrypted PDFs.

        Raises:
            JobError: poppler is asked for and not installed.
        """
        if settings.renderer == "poppler" and not _poppler_installed():
            raise JobError(
                "render.renderer is poppler, but pdftoppm is not on PATH; "
                "install poppler-utils or use pdfium"
            )
        self._settings = settings
        self._plan_page = plan_page
        self._password = password
        self._content = SharedFile("pagelake-document")
        self._pixels = SharedFile("pagelake-canvas")
        self._canvas = Canvas(self._pixels.path)
        self._process: RenderProcess | None = None
        self._n_opened = 0
        self._document: _Document | None = None
        self._opened: _Way | None = None
        self._n_drawn = 0

    def open(self, source: Path | bytes, media_type: MediaType | None = None) -> DocumentInfo:
        """Open a document in place of the one before; it stays open until the next.

        A path must stay readable meanwhile. The media type is settled by the content; the one
        given only makes the message better when the content is none that can be drawn.

        Raises:
            ItemError: source_missing, unreadable, unsupported, encrypted, empty, render_timeout,
                render_crash, render_memory.
        """
        self._document = None
        self._opened = None
        found = read_media_type(source, media_type)
        if isinstance(source, bytes):
            self._content.write(source)
            path = self._content.path
        else:
            path = str(source.resolve())
        self._n_opened += 1
        if self._n_opened % _DOCUMENTS_A_PROCESS == 0:
            self._stop()
        self._document = self._open_somehow(path, found)
        return DocumentInfo(self._document.n_pages, found)

    def draw(self, page_number: int) -> Page:
        """Draw a page (from 1) of the open document on the canvas that its plan asks for.

        The image is (canvas height, canvas width, 1 or 3) uint8, contiguous and its own; one
        channel if every pixel is grey.

        Raises:
            ItemError: the failure of the first attempt, after every other way has failed too.
            ValueError: no document is open, or it has no such page.
        """
        document = self._document
        if document is None or not 1 <= page_number <= document.n_pages:
            raise ValueError(f"there is no open page {page_number}")
        first_failure: ItemError | None = None
        for way in document.ways:
            try:
                return self._draw_once(document, page_number, way)
            except ItemError as error:
                first_failure = first_failure or error
        assert first_failure is not None  # noqa: S101
        raise first_failure

    def close(self) -> None:
        """End the process and free the memory. May be called twice."""
        self._stop()
        self._canvas.close()
        self._pixels.close()
        self._content.close()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def filtered(self) -> bool:
        """True if the process that draws may make no more system calls than it needs."""
        return self._running().filtered

    def _open_somehow(self, path: str, media_type: MediaType) -> _Document:
        """Open in the first way that works: bringing up forms hangs on rare files."""
        ways = self._ladder(media_type)
        first_failure: ItemError | None = None
        while ways:
            try:
                opened = self._open_in(self._running(), path, media_type, ways[0])
            except ItemError as error:
                first_failure = first_failure or error
                if error.kind in (FailureKind.ENCRYPTED, FailureKind.EMPTY):
                    break
                ways = ways[1:]
            else:
                if ways[0] == _FORMS and not opened.has_forms:
                    ways = (_FORMS, *ways[2:])  # the second would do just the same
                return _Document(path, media_type, opened.n_pages, ways)
        assert first_failure is not None  # noqa: S101
        raise first_failure

    def _open_in(
        self, process: RenderProcess, path: str, media_type: MediaType, way: _Way
    ) -> Opened:
        self._opened = None
        request = Open(path, media_type, self._password, way.reader, way.forms)
        opened = process.ask(request, Opened, process.budget())
        self._opened = way
        self._n_drawn = 0
        return opened

    def _ladder(self, media_type: MediaType) -> tuple[_Way, ...]:
        """The ways to open a document and draw it, best first."""
        if media_type is not MediaType.PDF:
            return (_NO_FORMS,)
        if self._settings.renderer == "poppler":
            return (_DRAWN_BY_POPPLER, _POPPLER)
        ladder = (_FORMS, _NO_FORMS)
        return (*ladder, _POPPLER) if _poppler_installed() else ladder

    def _draw_once(self, document: _Document, number: int, way: _Way) -> Page:
        process = self._running()
        if self._opened != way or self._n_drawn >= _PAGES_AN_OPENING:
            self._open_in(process, document.path, document.media_type, way)
        self._n_drawn += 1
        budget = process.budget()
        measured = process.ask(Measure(number), Measured, budget)
        if not (0 < measured.width < math.inf and 0 < measured.height < math.inf):
            raise ItemError(FailureKind.UNREADABLE, "the page has no size")
        plan = self._plan_page(measured.width, measured.height, measured.scalable)
        self._pixels.grow(plan.canvas_height * plan.canvas_width * 3)
        drawn = process.ask(
            Draw(
                number=number,
                width=plan.width,
                height=plan.height,
                canvas_width=plan.canvas_width,
                canvas_height=plan.canvas_height,
                renderer=way.renderer,
            ),
            Drawn,
            budget,
        )
        words = self._words(process, budget)
        channels = 1 if drawn.grey else 3
        canvas = self._canvas.view(plan.canvas_height, plan.canvas_width)
        image = np.array(canvas[:, :, :channels], order="C")
        return Page(number, image, words, drawn.rotation)

    def _words(self, process: RenderProcess, budget: Budget) -> tuple[Word, ...]:
        with suppress(ItemError):
            return tuple(Word(*word) for word in process.listen(TextLayer, budget).words)
        return ()

    def _running(self) -> RenderProcess:
        """The process, started again if it is gone or its memory is half used up."""
        process = self._process
        if process is not None and process.alive and process.memory_left > _LEAST_MEMORY_LEFT:
            return process
        self._stop()
        self._process = RenderProcess(self._pixels.path, self._settings)
        return self._process

    def _stop(self) -> None:
        self._opened = None
        if self._process is not None:
            self._process.kill()
            self._process = None


def _poppler_installed() -> bool:
    return shutil.which("pdftoppm") is not None
