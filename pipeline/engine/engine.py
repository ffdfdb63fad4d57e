"""The engine: requests in, generations out, in batches that the caller never sees."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType

from pipeline.engine.request import Request
from pipeline.errors import ItemError
from pipeline.models.base import Model, ModelInput
from pipeline.records import FailureKind, Generation


@dataclass(frozen=True, slots=True)
class Limits:
    """`batch` is the most samples a batch has; `linger_s` how long a short one waits for more."""

    batch: int = 16
    linger_s: float = 0.02


@dataclass(slots=True)
class _Pending:
    request: Request
    future: Future[Generation]
    submitted: float


class Engine:
    """Owns the model and a thread that feeds it. Close it, or use it as a context manager.

    A batch that fails is halved until the failing sample stands alone; that sample's future gets an
    `ItemError` (`out_of_memory` or `model_error`) and the others get their answers.
    """

    def __init__(self, model: Model, limits: Limits) -> None:
        self._model = model
        self._limits = limits
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._closed = False
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
        """Queue a request. The future raises ItemError if the model fails on this sample."""
        future: Future[Generation] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the engine is closed")
            self._queue.put(_Pending(request, future, time.perf_counter()))
        return future

    def close(self, *, drain: bool = True) -> None:
        """Answer what is queued, then stop; without `drain`, leave it and the batch under way."""
        with self._closing:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        if drain:
            self._thread.join()

    def _serve(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, open_ended = self._collect(first)
            for group in _by_limit(batch):
                self._run(group)
            if not open_ended:
                return

    def _collect(self, first: _Pending) -> tuple[list[_Pending], bool]:
        """Gather a batch behind `first`; False says that the queue has been closed."""
        batch = [first]
        deadline = time.perf_counter() + self._limits.linger_s
        while len(batch) < self._limits.batch:
            try:
                item = self._queue.get(timeout=max(0.0, deadline - time.perf_counter()))
            except queue.Empty:
                break
            if item is None:
                return batch, False
            batch.append(item)
        return batch, True

    def _run(self, batch: Sequence[_Pending]) -> None:
        try:
            generations = self._generate(batch)
        except Exception as error:
            if len(batch) > 1:
                half = len(batch) // 2
                self._run(batch[:half])
                self._run(batch[half:])
            else:
                batch[0].future.set_exception(_blame(error))
            return
        for item, generation in zip(batch, generations, strict=True):
            item.future.set_result(generation)

    def _generate(self, batch: Sequence[_Pending]) -> list[Generation]:
        started = time.perf_counter()
        inputs = [
            ModelInput(
                prompt=item.request.prompt,
                tiles=item.request.tiles,
                constraint=item.request.grammar.start() if item.request.grammar else None,
            )
            for item in batch
        ]
        outputs = self._model.generate(inputs, batch[0].request.max_new_tokens)
        share = (time.perf_counter() - started) / len(batch)
        return [
            Generation(
                text=output.text,
                token_ids=output.token_ids,
                logprobs=output.logprobs,
                finish_reason=output.finish_reason,
                prompt_tokens=output.prompt_tokens,
                queue_s=started - item.submitted,
                model_s=share,
            )
            for item, output in zip(batch, outputs, strict=True)
        ]


def _by_limit(batch: Iterable[_Pending]) -> list[list[_Pending]]:
    """Part a batch by token limit, which the model knows one of, and leave out the cancelled."""
    groups: dict[int, list[_Pending]] = {}
    for item in batch:
        if item.future.set_running_or_notify_cancel():
            groups.setdefault(item.request.max_new_tokens, []).append(item)
    return list(groups.values())


def _blame(error: Exception) -> ItemError:
    kind = FailureKind.OUT_OF_MEMORY if isinstance(error, MemoryError) else FailureKind.MODEL_ERROR
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return ItemError(kind, line[:500])
