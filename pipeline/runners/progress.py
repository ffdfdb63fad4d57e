"""What the user sees while a run goes on: one live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from pipeline.runners.receipt import Receipt
from pipeline.terminal import counted

_SECONDS_BETWEEN_LINES = 10.0
_STALL_S = 60.0
_MOST_STALLED = 5


class RunProgress:
    """Follows a run: `planned` while documents are counted, `committed` as pages are finished.

    After `stall_s` seconds without either it says what is under way, and so once every `stall_s`.
    """

    def __init__(self, console: Console, stall_s: float = _STALL_S) -> None:
        self._console = console
        self._stall_s = stall_s
        self._started = time.monotonic()
        self._last_line = self._last_sign = self._last_stall = self._started
        self._pages = self._documents = self._failed = 0
        self._total_pages = self._total_documents = 0
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task("planning", total=None, text="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def planning(self) -> None:
        """Say that documents are being listed and counted."""
        self.pausing()
        self._line("planning: listing documents and counting pages")

    def planned(self, documents: int, pages: int) -> None:
        """Say how many documents and pages have been counted so far."""
        self._last_sign = time.monotonic()
        text = f"{counted(documents, 'document')}, {counted(pages, 'page')}"
        self._bar.update(self._task, text=text)
        self._line_now_and_then(f"planning: {text}")

    def pausing(self) -> None:
        """Expect no sign for a while: what goes on is not followed."""
        self._last_sign = math.inf

    def starting(self, documents: int, pages: int) -> None:
        """Turn to the pages: so many are to be done."""
        self._total_documents, self._total_pages = documents, pages
        self._started = self._last_sign = time.monotonic()
        self._bar.update(self._task, description="reading", total=pages, completed=0)
        self._show()
        text = f"{counted(documents, 'document')}, {counted(pages, 'page')}"
        self._line(f"reading: {text} to do; loading the model")

    def committed(self, receipt: Receipt) -> None:
        """Count a commit."""
        self._last_sign = time.monotonic()
        self._pages += receipt.pages
        self._documents += receipt.documents
        self._failed += receipt.states.get("failed", 0)
        self._show()
        self._line_now_and_then(f"reading: {self._text()}, {self._remaining()} left")

    def assembling(self) -> None:
        """Say that the documents table is being made."""
        self.pausing()
        self._bar.update(self._task, description="assembling")
        self._line("assembling documents")

    def look(self, under_way: Sequence[object]) -> None:
        """Say what is under way if nothing has been finished for a while; to be called often.

        It is what this machine's processes are at, oldest first; other machines of a cluster are
        not seen.
        """
        now = time.monotonic()
        if now - max(self._last_sign, self._last_stall) < self._stall_s:
            return
        self._last_stall = now
        self._say(
            f"nothing finished for {now - self._last_sign:.0f} s; "
            f"{len(under_way)} under way on this machine"
        )
        for item in under_way[:_MOST_STALLED]:
            self._say(f"  {item}")

    def last_words(self, text: str) -> None:
        """Say why the process ends now, without unwinding."""
        self._bar.stop()
        self._say(f"pagelake: {text}")

    def _text(self) -> str:
        rate = self._pages / max(time.monotonic() - self._started, 1e-9)
        return (
            f"{self._documents:,}/{self._total_documents:,} documents, "
            f"{self._pages:,}/{self._total_pages:,} pages, {rate:.1f} pages/s, "
            f"{self._failed:,} failed"
        )

    def _remaining(self) -> str:
        elapsed = time.monotonic() - self._started
        seconds = elapsed * (self._total_pages - self._pages) / max(self._pages, 1)
        minutes, seconds = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"

    def _show(self) -> None:
        self._bar.update(self._task, completed=self._pages, text=self._text())

    def _line_now_and_then(self, text: str) -> None:
        if time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._line(text)

    def _line(self, text: str) -> None:
        if not self._console.is_terminal:
            self._last_line = time.monotonic()
            self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
