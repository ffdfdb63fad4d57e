"""The render process: opens one document at a time and draws its pages, within limits.

It is started by `process.RenderProcess`, answers requests from stdin on stdout, and loads nothing
but the renderers, so that it starts quickly and its memory limit is the renderers' own.
A crash of a renderer ends it, which the parent expects.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.records import FailureKind, MediaType
from pipeline.render import pdfium, poppler, sandbox
from pipeline.render.images import ImageDocument
from pipeline.render.messages import (
    Draw,
    Drawn,
    Failed,
    Measure,
    Measured,
    Open,
    Opened,
    Ready,
    Reply,
    Request,
    TextLayer,
    decode,
    encode,
)
from pipeline.render.shared import Canvas, is_grey
from pipeline.render.words import read_words

_OpenDocument = pdfium.PdfiumDocument | poppler.PopplerDocument | ImageDocument


class Worker:
    """Answers requests about one open document."""

    def __init__(self, canvas: Canvas, memory_mb: int) -> None:
        self._canvas = canvas
        self._memory_mb = memory_mb
        self._path = ""
        self._document: _OpenDocument | None = None

    def answer(self, request: Request) -> Iterator[Reply]:
        """The replies to a request; whatever goes wrong short of a crash becomes `Failed`."""
        try:
            match request:
                case Open():
                    yield self._open(request)
                case Measure():
                    yield self._measure(request)
                case Draw():
                    yield from self._draw(request)
        except ItemError as error:
            yield Failed(error.kind, error.message)
        except MemoryError:
            message = f"the renderer ran out of its {self._memory_mb} MiB"
            yield Failed(FailureKind.RENDER_MEMORY, message)
        except Exception as error:  # damaged files make the readers raise nearly anything
            yield Failed(FailureKind.UNREADABLE, self._nameless(error))

    def _open(self, request: Open) -> Opened:
        if self._document is not None:
            self._document.close()
            self._document = None
        self._path = request.path
        media_type = MediaType(request.media_type)
        if media_type is not MediaType.PDF:
            self._document = ImageDocument(request.path, media_type, self._memory_mb)
        elif request.reader == "pdfium":
            self._document = pdfium.PdfiumDocument(request.path, request.password, request.forms)
        else:
            self._document = poppler.PopplerDocument(request.path, request.password)
        return Opened(self._document.n_pages, self._document.has_forms)

    def _measure(self, request: Measure) -> Measured:
        document = self._opened()
        width, height = document.size(request.number)
        return Measured(width, height, document.scalable)

    def _draw(self, request: Draw) -> Iterator[Reply]:
        document = self._opened()
        canvas = self._canvas.view(request.canvas_height, request.canvas_width)
        canvas.fill(255)
        drawing = canvas[: request.height, : request.width]
        if not isinstance(document, pdfium.PdfiumDocument):
            rotation = document.draw(request.number, drawing)
            yield Drawn(is_grey(canvas), rotation)
            yield TextLayer([])
            return
        with document.page(request.number) as page:
            if request.renderer == "pdfium":
                pdfium.draw_page(page, drawing)
            else:
                poppler.draw_page(self._path, document.password, request.number, drawing)
            yield Drawn(is_grey(canvas), page.get_rotation())
            yield TextLayer(read_words(page, request.width, request.height))

    def _opened(self) -> _OpenDocument:
        if self._document is None:
            raise ItemError(FailureKind.UNREADABLE, "no document is open")
        return self._document

    def _nameless(self, error: Exception) -> str:
        """What the error says, without the path, which says where others keep their files."""
        text = f"{type(error).__name__}: {error}"
        for path in (self._path, repr(self._path)[1:-1], repr(os.fsencode(self._path))[2:-1]):
            text = text.replace(path, "the file")
        return text


def limit_memory(memory_mb: int) -> int | None:
    """Cap the address space at what is mapped now and `memory_mb` MiB more; bytes, or None.

    None where the system does not tell what is mapped (it is no Linux), and sets no limit.
    """
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
    limit = mapped + (memory_mb << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return limit


def die_with(parent: int) -> None:
    """Kill this process and its pdftoppm once `parent` is gone. Never returns.

    Works while a renderer hangs, because its calls release the interpreter's lock.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Serve until stdin ends."""
    options = argparse.ArgumentParser()
    options.add_argument("--parent", type=int, required=True)
    options.add_argument("--canvas", required=True)
    options.add_argument("--memory-mb", type=int, required=True)
    given = options.parse_args()

    # Whatever a library prints must not end up among the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    threading.Thread(target=die_with, args=(given.parent,), daemon=True).start()
    with Canvas(given.canvas) as canvas:
        worker = Worker(canvas, given.memory_mb)
        replies.write(encode(Ready(limit_memory(given.memory_mb), sandbox.enter())))
        replies.flush()
        for line in sys.stdin.buffer:
            request = decode(line)
            assert isinstance(request, Request)  # noqa: S101
            for reply in worker.answer(request):
                replies.write(encode(reply))
                replies.flush()


if __name__ == "__main__":
    main()
