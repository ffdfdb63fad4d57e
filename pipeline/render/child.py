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
from pathlib import Path

from pipeline.errors import ItemError
from pipeline.records import FailureKind, Image, MediaType
from pipeline.render import pdfium, poppler
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
    decode,
    encode,
)
from pipeline.render.shared import Canvas, is_grey
from pipeline.render.words import WordBox, read_words

_MAX_MESSAGE = 200


class Worker:
    """Answers requests about one open document."""

    def __init__(self, canvas: Canvas, memory_mb: int) -> None:
        self._canvas = canvas
        self._memory_mb = memory_mb
        self._path = ""
        self._document: pdfium.PdfiumDocument | ImageDocument | None = None

    def answer(self, request: Request) -> Reply:
        """The reply to a request; whatever goes wrong short of a crash becomes `Failed`."""
        try:
            match request:
                case Open():
                    return self._open(request)
                case Measure():
                    return self._measure(request)
                case Draw():
                    return self._draw(request)
        except ItemError as error:
            return Failed(error.kind, error.message)
        except MemoryError:
            message = f"the renderer ran out of its {self._memory_mb} MiB"
            return Failed(FailureKind.RENDER_MEMORY, message)
        except Exception as error:  # damaged files make the readers raise nearly anything
            return Failed(FailureKind.UNREADABLE, self._one_line(error))

    def _open(self, request: Open) -> Opened:
        if self._document is not None:
            self._document.close()
            self._document = None
        self._path = request.path
        media_type = MediaType(request.media_type)
        if media_type is MediaType.PDF:
            self._document = pdfium.PdfiumDocument(request.path, request.password, request.forms)
        else:
            self._document = ImageDocument(request.path, media_type, self._memory_mb)
        return Opened(self._document.n_pages, self._document.has_forms)

    def _measure(self, request: Measure) -> Measured:
        document = self._opened()
        width, height = document.size(request.number)
        return Measured(width, height, document.scalable)

    def _draw(self, request: Draw) -> Drawn:
        document = self._opened()
        canvas = self._canvas.view(request.canvas_height, request.canvas_width)
        canvas.fill(255)
        drawing = canvas[: request.height, : request.width]
        if isinstance(document, pdfium.PdfiumDocument):
            rotation, words = self._draw_pdf(document, request, drawing)
        else:
            document.draw(request.number, drawing)
            rotation, words = 0, []
        return Drawn(is_grey(canvas), rotation, words)

    def _draw_pdf(
        self, document: pdfium.PdfiumDocument, request: Draw, drawing: Image
    ) -> tuple[int, list[WordBox]]:
        if request.renderer == "poppler":
            poppler.draw_page(self._path, document.password, request.number, drawing)
        if not request.parse:
            return 0, []
        with document.page(request.number) as page:
            if request.renderer == "pdfium":
                pdfium.draw_page(page, drawing)
            words = read_words(page, request.width, request.height)
            return page.get_rotation(), words

    def _opened(self) -> pdfium.PdfiumDocument | ImageDocument:
        if self._document is None:
            raise ItemError(FailureKind.UNREADABLE, "no document is open")
        return self._document

    def _one_line(self, error: Exception) -> str:
        """What the error says, printable, with no path and not without end."""
        text = f"{type(error).__name__}: {error}".replace(self._path, "the file")
        printable = "".join(c if c.isprintable() else " " for c in text)
        return " ".join(printable.split())[:_MAX_MESSAGE]


def limit_memory(memory_mb: int) -> int | None:
    """Cap the address space at what is mapped now and `memory_mb` MiB more; bytes, or None.

    None where the system does not tell what is mapped (it is no Linux), and sets no limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
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
        reply: Reply = Ready(limit_memory(given.memory_mb))
        replies.write(encode(reply))
        replies.flush()
        for line in sys.stdin.buffer:
            request = decode(line)
            assert isinstance(request, Request)  # noqa: S101
            replies.write(encode(worker.answer(request)))
            replies.flush()


if __name__ == "__main__":
    main()
