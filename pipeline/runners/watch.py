"""Deadlines and blame for the stages that run in worker processes.

An item that brings its process down, or does not end, costs itself a failure and nothing else: each
is noted while it is under way, a process that is gone leaves its note behind, and an item on whose
record are `limits.attempts` processes is given up before it begins. Every process that takes part
looks at all notes of its machine once a second and ends what is overdue, its own or another's: what
hangs may hold Python's lock, so that its own process cannot look.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol

from pipeline.errors import ItemError
from pipeline.job import Limits
from pipeline.records import FailureKind
from pipeline.runners.notes import End, Item, Note, Notes, key_of
from pipeline.runners.recipe import Recipe

_LOOK_S = 1.0
_ASLEEP_S = 30.0


class Watching(Protocol):
    """What steps ask for: something to tell what they are at."""

    def item(
        self, stage: str, key: str, label: str, more_s: float = 0.0
    ) -> AbstractContextManager[None]:
        """See `Watch.item`."""

    def tried(self, stage: str, key: str) -> int:
        """See `Watch.tried`."""

    def tell(self, stage: str, key: str, label: str, attempt: int) -> None:
        """See `Watch.tell`."""

    def rest(self) -> None:
        """See `Watch.rest`."""


class Unwatched:
    """Takes no notes."""

    def item(
        self, stage: str, key: str, label: str, more_s: float = 0.0
    ) -> AbstractContextManager[None]:
        """Do nothing."""
        del stage, key, label, more_s
        return nullcontext()

    def tried(self, stage: str, key: str) -> int:
        """Know nothing."""
        del stage, key
        return 0

    def tell(self, stage: str, key: str, label: str, attempt: int) -> None:
        """Do nothing."""

    def rest(self) -> None:
        """Do nothing."""


UNWATCHED = Unwatched()


Then = Callable[[Sequence[Item]], None]
"""Told once a second what is under way on this machine, oldest first."""


def _no_more(items: Sequence[Item]) -> None:
    del items


def _end_self(item: Item) -> None:
    del item
    os.kill(os.getpid(), signal.SIGKILL)


class Watch:
    """This process's part in watching over a run. Thread-safe."""

    def __init__(
        self, notes: Notes, limits: Limits, end_self: Callable[[Item], None] = _end_self
    ) -> None:
        """`end_self` ends this process, if it is itself at an item that is overdue."""
        self._notes = notes
        self._limits = limits
        self._end_self = end_self
        self._mine = threading.local()
        self._stopping = threading.Event()
        self._record: dict[str, Counter[End]] = {}
        self.refresh()

    def start(self, then: Then = _no_more) -> None:
        """Look after all items once a second, in a thread of its own, and tell `then` of them."""
        threading.Thread(target=self._look, args=(then,), name="watch", daemon=True).start()

    @contextmanager
    def guard(self, then: Then) -> Iterator[None]:
        """Look after a whole run, from its driver.

        What items have brought down is forgotten once the run has finished. What is under way when
        it ends otherwise is not blamed: the run ends those processes, and all stop looking before.
        """
        self.start(then)
        finished = False
        try:
            yield
            finished = True
        finally:
            self.close()
            self._notes.forget(record=finished)

    def close(self) -> None:
        """Look no more."""
        self._stopping.set()

    def refresh(self) -> None:
        """Learn what items have brought down by now; to be called before a task is begun."""
        self._notes.look()
        self._record = self._notes.record()

    @contextmanager
    def item(self, stage: str, key: str, label: str, more_s: float = 0.0) -> Iterator[None]:
        """Note what is done in the block, in which items do not nest.

        `key` tells the item among those of its stage and `label` names it for people. The block may
        take `limits.item_s` and `more_s`, for what has limits of its own.

        Raises
        ------
        ItemError
            stage_crash or stage_timeout, and nothing is done: it has brought down too many
            processes before.
        """
        short = key_of(stage, key)
        attempt = self._times(stage, short) + 1
        self._note().begin(stage, short, label, self._limits.item_s + more_s, attempt)
        try:
            yield
        finally:
            self.rest()

    def tried(self, stage: str, key: str) -> int:
        """Return how many processes an item has brought down.

        Raises
        ------
        ItemError
            stage_crash or stage_timeout, if they were too many.
        """
        return self._times(stage, key_of(stage, key))

    def _times(self, stage: str, short: str) -> int:
        ends = self._record.get(short)
        if ends is None:
            return 0
        if ends.total() >= self._limits.attempts:
            raise _given_up(stage, ends)
        return ends.total()

    def tell(self, stage: str, key: str, label: str, attempt: int) -> None:
        """Note what this thread is at until it says otherwise, for as long as it takes."""
        self._note().begin(stage, key_of(stage, key), label, math.inf, attempt)

    def rest(self) -> None:
        """Note that this thread is at nothing."""
        self._note().end()

    def _note(self) -> Note:
        note: Note | None = getattr(self._mine, "note", None)
        if note is None:
            note = self._mine.note = self._notes.new()
        return note

    def _look(self, then: Then) -> None:
        looked = awake_since = time.monotonic()
        while not self._stopping.wait(_LOOK_S) and self._notes.kept:
            now = time.monotonic()
            if now - looked > _ASLEEP_S:
                awake_since = now
            looked = now
            with suppress(OSError):  # a disk's trouble is told by those who need it more
                items = self._notes.look()
                for item in items:
                    if overdue(item, now, awake_since):
                        self._end(item)
                then(items)

    def _end(self, item: Item) -> None:
        """End the process that is at an overdue item. The folder is this user's, so it is too."""
        process = item.process
        if not process.near or process.gone or not self._notes.condemn(item):
            return
        if process.pid == os.getpid():
            self._end_self(item)
        else:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def overdue(item: Item, now: float, awake_since: float) -> bool:
    """Return whether an item has had its time, in which its watch was awake: a run that somebody
    stops at the keyboard and continues after lunch has hung nowhere."""
    return now - max(item.since, awake_since) > item.allowed_s


def notes_of(recipe: Recipe) -> Notes:
    """Return this machine's notes about a recipe's output."""
    layout = recipe.layout
    # What was brought down is on record until a run has finished: then the next begins a new one.
    output = f"{layout.filesystem.type_name}:{layout.root}:{recipe.finished_before}"
    return Notes(output, recipe.provenance.run_id)


def watch_over(recipe: Recipe) -> Watch:
    """Return a worker's watch, started."""
    watch = Watch(notes_of(recipe), recipe.job.limits)
    watch.start()
    return watch


def _given_up(stage: str, ends: Counter[End]) -> ItemError:
    crashes, timeouts = ends[End.CRASH], ends[End.TIMEOUT]
    told = [f"{crashes} died"] * (crashes > 0) + [f"{timeouts} did not end"] * (timeouts > 0)
    kind = FailureKind.STAGE_TIMEOUT if timeouts >= crashes else FailureKind.STAGE_CRASH
    message = f"given up in stage {stage}: of the processes that tried, {' and '.join(told)}"
    return ItemError(kind, message, attempt=crashes + timeouts)
