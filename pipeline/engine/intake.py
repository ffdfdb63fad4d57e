"""Rows on their way in: their prompts are read, ahead where that pays, and they come to join."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import torch

from pipeline.engine.blame import halving
from pipeline.engine.reader import Read, Reader
from pipeline.engine.row import Row
from pipeline.engine.scheduler import Scheduler
from pipeline.errors import ItemError
from pipeline.models.devices import use_threads
from pipeline.models.stepping import SteppingModel
from pipeline.records import FailureKind


@dataclass(slots=True)
class _Outcome:
    reads: list[Read] = field(default_factory=list)
    failed: list[tuple[Row, ItemError]] = field(default_factory=list)


class Intake:
    """Reads the prompts of the scheduler's waiting rows. For the engine's thread.

    On a CPU with two threads or more, half of them read ahead on a thread of their own while the
    others step: two steady lanes waste less than passes that are parted among threads. Otherwise
    prompts are read in the engine's thread, once an eighth of the slots is free.
    """

    def __init__(self, model: SteppingModel, prefill_tokens: int, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        threads = torch.get_num_threads()
        ahead = threads // 2 if model.decoder.shape.device.type == "cpu" else 0
        self.threads = threads - ahead
        """How many are left for the rows under way."""
        self._reader = Reader(model, prefill_tokens, ahead or threads)
        self._lane = (
            ThreadPoolExecutor(1, "reading", initializer=use_threads, initargs=(ahead,))
            if ahead
            else None
        )
        self._under_way: Future[_Outcome] | None = None
        self._ready: deque[Read] = deque()
        self._put_back: list[Row] = []
        self._room_since = False

    @property
    def busy(self) -> bool:
        """Whether rows wait, are being read or are ready to join."""
        return bool(self._scheduler.waiting or self._put_back or self.holding)

    @property
    def holding(self) -> bool:
        """Whether rows are being read or are ready to join."""
        return bool(self._ready or self._under_way)

    def reads(self) -> Iterator[Read]:
        """Yield what is read and fits; each must have joined before the next is asked for."""
        scheduler = self._scheduler
        self._bring_back()
        if self._lane is None:
            if scheduler.free >= scheduler.group:
                # One group at a time: no more than one is held beside the cache.
                for group in self._reader.alike(scheduler.next(scheduler.free)):
                    self._take(self._read(group))
                    yield from self._fitting()
            return
        if self._under_way is not None and self._under_way.done():
            done, self._under_way = self._under_way, None
            self._take(done.result())
        if self._under_way is None and len(self._ready) < 2 and scheduler.waiting:
            self._under_way = self._lane.submit(self._read, scheduler.next(scheduler.group))
        yield from self._fitting()

    def wait(self) -> None:
        """Wait for what is being read."""
        if self._under_way is not None:
            wait([self._under_way])

    def there_is_room(self) -> None:
        """Note that rows have left: what did not fit beside them may fit now."""
        self._room_since = True

    def close(self) -> None:
        """Read no more."""
        if self._lane is not None:
            self._lane.shutdown(wait=False, cancel_futures=True)

    def _fitting(self) -> Iterator[Read]:
        while self._ready and len(self._ready[0].rows) <= self._scheduler.free:
            yield self._ready.popleft()

    def _read(self, rows: Sequence[Row]) -> _Outcome:
        outcome = _Outcome()
        for group in self._reader.alike(rows):
            halving(
                lambda some: outcome.reads.append(self._reader.read(some)),
                group,
                lambda row, error: outcome.failed.append((row, error)),
            )
        return outcome

    def _take(self, outcome: _Outcome) -> None:
        self._ready.extend(outcome.reads)
        for row, error in outcome.failed:
            others = self._scheduler.running or self._ready
            if error.kind is FailureKind.OUT_OF_MEMORY and others:
                self._put_back.append(row)  # the memory may be theirs
            else:
                row.future.set_exception(error)

    def _bring_back(self) -> None:
        if self._put_back and (self._room_since or not self._scheduler.running):
            self._scheduler.waiting.extendleft(reversed(self._put_back))
            self._put_back.clear()
        self._room_since = False
