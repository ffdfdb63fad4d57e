"""The engine: requests in, generations out, in batches that the caller never sees."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from pipeline.engine.memory import MemoryPlan
from pipeline.engine.request import Request
from pipeline.engine.static import StaticBatches
from pipeline.models.base import Model
from pipeline.models.stepping import SteppingModel
from pipeline.records import Generation

_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`batch` is how many samples run together; `linger_s` how long an idle engine waits for more.

    `prefill_tokens` bounds the tokens of prompts in one pass. With `speculate` pages' text layers
    are used to guess ahead. `fixed_steps` are recorded as CUDA graphs on a GPU: not tried yet.
    """

    batch: int = 64
    linger_s: float = 0.02
    prefill_tokens: int = 8192
    speculate: bool = True
    fixed_steps: bool = False


@dataclass(slots=True)
class Pending:
    """A request on its way in."""

    request: Request
    future: Future[Generation]
    submitted: float


class Worker(Protocol):
    """What runs requests; called by the engine's thread only."""

    def start(self) -> None:
        """Prepare the thread."""
        ...

    def add(self, item: Pending) -> None:
        """Take a request in."""
        ...

    def room(self) -> int:
        """How many more requests are of use now."""
        ...

    def idle(self) -> bool:
        """Whether there is nothing to do."""
        ...

    @property
    def plan(self) -> MemoryPlan | None:
        """How memory is used; None before the first request, or if there is no plan."""
        ...

    def advance(self) -> None:
        """Do some work, settle the futures of what is finished."""
        ...

    def close(self) -> None:
        """Leave what is under way."""
        ...


class Engine:
    """Owns the model and a thread that feeds it. Close it, or use it as a context manager.

    A model that can be run token by token answers in a running batch, that samples join and leave
    at any step; any other gets whole batches. Work that fails is halved until the failing sample
    stands alone; that sample's future gets an `ItemError` (`out_of_memory` or `model_error`) and
    the others get their answers.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self._limits = limits
        self._worker = _worker(model, limits)
        self._queue: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._closed = self._drained = False
        self._reason = "the engine was closed"
        self._open: set[Future[Generation]] = set()
        self._abandoned = threading.Event()
        self.progress = 0
        """Pieces of work done so far: what stands still while requests are open has stalled."""
        self._closing = threading.Lock()  # no request may be queued behind the end of the queue
        self._thread.start()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(drain=kind is None)

    def submit(self, request: Request) -> Future[Generation]:
        """Queue a request. The future raises ItemError if the model fails on this sample.

        It raises RuntimeError if the engine fails itself, which ends it, or is closed before.
        """
        future: Future[Generation] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError(self._reason)
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            self._queue.put(Pending(request, future, time.perf_counter()))
        return future

    @property
    def plan(self) -> MemoryPlan | None:
        """How memory is used, as far as that is planned yet."""
        return self._worker.plan

    def close(self, *, drain: bool = True) -> None:
        """Answer what is queued, then stop; without `drain`, leave it and what is under way.

        What is left gets a RuntimeError, once the pass under way is done.
        """
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if drain:
            self._thread.join()
        else:
            self._abandoned.set()
            # An interpreter that ends while a thread is inside of torch aborts.
            if threading.current_thread() is not self._thread:
                self._thread.join(_PATIENCE_S)

    def _serve(self) -> None:
        reason, cause = "the engine was closed", None
        try:
            self._work()
        except Exception as error:  # of the engine's own: no sample is to blame
            reason, cause = f"the engine failed: {type(error).__name__}: {error}", error
        with self._closing:
            self._closed, self._reason = True, reason
        self._worker.close()
        for future in tuple(self._open):  # nobody may wait for ever
            failure = RuntimeError(reason)
            failure.__cause__ = cause
            with suppress(InvalidStateError):  # cancelled meanwhile
                future.set_exception(failure)

    def _work(self) -> None:
        self._worker.start()
        while not self._abandoned.is_set():
            self._take_in()
            if not self._worker.idle():
                self._worker.advance()
                self.progress += 1
            elif self._drained:
                return

    def _take_in(self) -> None:
        """Fetch requests: wait for the first if idle, and a moment for others to join it."""
        deadline: float | None = None
        while not self._drained and self._worker.room() > 0:
            try:
                if self._worker.idle():
                    item = self._queue.get()
                    deadline = time.perf_counter() + self._limits.linger_s
                elif deadline is not None:
                    item = self._queue.get(timeout=max(0.0, deadline - time.perf_counter()))
                else:
                    item = self._queue.get_nowait()
            except queue.Empty:
                return
            if item is None:
                self._drained = True
            elif item.future.set_running_or_notify_cancel():
                self._worker.add(item)


def _worker(model: Model, limits: Limits) -> Worker:
    if not isinstance(model, SteppingModel):
        return StaticBatches(model, limits.batch)
    # Only here, so that a model without torch, the fake one, is not kept waiting for it.
    from pipeline.engine.stepper import Stepper

    return Stepper(
        model,
        limits.batch,
        limits.prefill_tokens,
        speculate=limits.speculate,
        fixed_steps=limits.fixed_steps,
    )
