"""Documents to pages, whatever the documents do."""

from __future__ import annotations

import shutil
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
)
from pipeline.render.process import START_S, RenderLimits, RenderProcess
from pipeline.render.shared import Canvas, SharedFile

# What pdfium leaks over documents is bounded by starting afresh.
_DOCUMENTS_A_PROCESS = 500
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
    """The open document. `forms`: its forms can be brought up, and are, for the first attempt."""

    path: str
    media_type: MediaType
    n_pages: int
    forms: bool


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One way to draw a page; see `messages.Draw` for `parse`."""

    forms: bool
    renderer: RendererName
    parse: bool


def longest_s(limits: RenderLimits) -> float:
    """Return the seconds that opening a document and drawing a page of it may take at most.

    That is both ways to open it and the whole ladder, with a new process for each that opens the
    document again, measures and draws.
    """
    return 2 * (START_S + limits.wall_s) + 3 * (START_S + 3 * limits.wall_s)


class Renderer:
    """Draws the pages of one document at a time, in one long-lived process with limits.

    A document that crashes the process, or overruns its time or memory, costs the page at hand;
    the process is started again for the next. Not thread-safe.
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
        self._open_forms: bool | None = None

    def open(self, source: Path | bytes, media_type: MediaType | None = None) -> DocumentInfo:
        """Open a document in place of the one before; it stays open until the next.

        A path must stay readable meanwhile. The media type is settled by the content; the one
        given only makes the message better when the content is none that can be drawn.

        Raises:
            ItemError: source_missing, unreadable, unsupported, encrypted, empty, render_timeout,
                render_crash, render_memory.
        """
        self._document = None
        self._open_forms = None
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
        for attempt in self._ladder(document):
            try:
                return self._draw_once(document, page_number, attempt)
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

    def _open_somehow(self, path: str, media_type: MediaType) -> _Document:
        """Open with forms if that works (bringing them up hangs on rare files), else without."""
        if media_type is not MediaType.PDF or self._settings.renderer == "poppler":
            opened = self._open_in(self._running(), path, media_type, forms=False)
            return _Document(path, media_type, opened.n_pages, forms=False)
        try:
            opened = self._open_in(self._running(), path, media_type, forms=True)
            return _Document(path, media_type, opened.n_pages, opened.has_forms)
        except ItemError as error:
            if error.kind in (FailureKind.ENCRYPTED, FailureKind.EMPTY):
                raise
            try:
                opened = self._open_in(self._running(), path, media_type, forms=False)
            except ItemError:
                raise error from None
            return _Document(path, media_type, opened.n_pages, forms=False)

    def _open_in(
        self, process: RenderProcess, path: str, media_type: MediaType, forms: bool
    ) -> Opened:
        self._open_forms = None
        opened = process.ask(Open(path, media_type, self._password, forms), Opened)
        self._open_forms = forms
        return opened

    def _ladder(self, document: _Document) -> list[_Attempt]:
        """The ways to draw a page, best first."""
        if document.media_type is not MediaType.PDF:
            return [_Attempt(forms=False, renderer="pdfium", parse=True)]
        if self._settings.renderer == "poppler":
            return [_Attempt(False, "poppler", parse=True), _Attempt(False, "poppler", parse=False)]
        ladder = [_Attempt(False, "pdfium", parse=True)]
        if document.forms:
            ladder.insert(0, _Attempt(True, "pdfium", parse=True))
        if _poppler_installed():
            ladder.append(_Attempt(False, "poppler", parse=False))
        return ladder

    def _draw_once(self, document: _Document, number: int, attempt: _Attempt) -> Page:
        process = self._running()
        if self._open_forms is not attempt.forms:
            self._open_in(process, document.path, document.media_type, attempt.forms)
        measured = process.ask(Measure(number), Measured)
        if not (measured.width > 0 and measured.height > 0):
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
                renderer=attempt.renderer,
                parse=attempt.parse,
            ),
            Drawn,
        )
        channels = 1 if drawn.grey else 3
        canvas = self._canvas.view(plan.canvas_height, plan.canvas_width)
        image = np.array(canvas[:, :, :channels], order="C")
        words = tuple(Word(*word) for word in drawn.words)
        return Page(number, image, words, drawn.rotation)

    def _running(self) -> RenderProcess:
        """The process, started again if it is gone or its memory is half used up."""
        process = self._process
        if process is not None and process.alive and process.memory_left > _LEAST_MEMORY_LEFT:
            return process
        self._stop()
        self._process = RenderProcess(self._pixels.path, self._settings)
        return self._process

    def _stop(self) -> None:
        self._open_forms = None
        if self._process is not None:
            self._process.kill()
            self._process = None


def _poppler_installed() -> bool:
    return shutil.which("pdftoppm") is not None
