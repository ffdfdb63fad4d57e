"""Continuous batching: rows join and leave the running batch at any step.

Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING

import torch

from pipeline.engine.blame import halving
from pipeline.engine.choose import Choice
from pipeline.engine.draft import Drafter, History, PageText
from pipeline.engine.memory import MemoryPlan
from pipeline.engine.reader import Read, Reader
from pipeline.engine.request import Request
from pipeline.engine.row import Row
from pipeline.engine.running import RunningBatch
from pipeline.engine.scheduler import Scheduler
from pipeline.errors import ItemError
from pipeline.models.stepping import SteppingModel
from pipeline.records import FinishReason, Generation

if TYPE_CHECKING:
    from pipeline.engine.engine import Pending


class Stepper:
    """See `pipeline.engine.engine.Worker`.

    On a CPU with two threads or more, half of them read images and prompts ahead while the others
    step: two steady lanes waste less than passes that are parted among threads.
    """

    def __init__(
        self,
        model: SteppingModel,
        slots: int,
        prefill_tokens: int,
        *,
        speculate: bool,
        fixed_steps: bool,
    ) -> None:
        self._model = model
        self._history = History() if speculate else None
        self._scheduler = Scheduler(slots)
        threads = torch.get_num_threads()
        ahead = threads // 2 if model.decoder.shape.device.type == "cpu" else 0
        self._threads = threads - ahead
        self._lane = (
            ThreadPoolExecutor(1, "reading", initializer=torch.set_num_threads, initargs=(ahead,))
            if ahead
            else None
        )
        self._reader = Reader(model, prefill_tokens, ahead or threads)
        self._under_way: Future[list[Read]] | None = None
        self._ready: deque[Read] = deque()
        self._batch = RunningBatch(model, slots, self._threads, fixed_steps=fixed_steps)
        self._stop_ids = frozenset(model.vocabulary.stop_ids)

    def start(self) -> None:
        """Take the threads that are left to this one."""
        torch.set_num_threads(self._threads)

    def add(self, item: Pending) -> None:
        """Take a request in."""
        halving(self._prepare, [item], lambda item, error: item.future.set_exception(error))

    def room(self) -> int:
        """How many more requests to hold ready."""
        return self._scheduler.slots - len(self._scheduler.waiting)

    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not (self._scheduler.running or self._coming())

    @property
    def plan(self) -> MemoryPlan | None:
        """How many slots of which length there are, once rows have come."""
        return self._batch.plan

    def advance(self) -> None:
        """Let rows join, and make one step."""
        self._read_more()
        while self._ready and len(self._ready[0].rows) <= self._scheduler.free:
            self._join(self._ready.popleft())
        if not self._coming():
            for row, slot in self._scheduler.moves():
                self._batch.move(row, slot)
                self._scheduler.moved(row, slot)
        if self._scheduler.running:
            self._step(list(self._scheduler.running))
        elif self._under_way is not None:
            wait([self._under_way])

    def _coming(self) -> bool:
        return bool(self._scheduler.waiting or self._ready or self._under_way)

    def _prepare(self, items: Sequence[Pending]) -> None:
        for item in items:
            request, model = item.request, self._model
            row = Row(
                request=request,
                future=item.future,
                prompt=model.tokenize(request.prompt, request.tiles),
                grammar=request.grammar.start() if request.grammar else None,
                drafter=self._drafter(request),
                stop_ids=self._stop_ids,
                submitted=item.submitted,
            )
            row.begin()
            self._batch.make_room(len(row.prompt.ids) + request.max_new_tokens)
            if self._batch.slots < self._scheduler.slots:
                self._scheduler.shrink(self._batch.slots)
            self._scheduler.waiting.append(row)

    def _drafter(self, request: Request) -> Drafter | None:
        if self._history is None:
            return None
        model, text = self._model, request.page_text
        page = PageText(text, model.tokens_of, model.text_of) if text else None
        return Drafter(self._history, page)

    def _read_more(self) -> None:
        """Read the prompts of rows that could soon join: ahead, or else once there is room."""
        scheduler = self._scheduler
        if self._lane is None:
            if scheduler.free >= scheduler.group:
                self._ready.extend(self._read(scheduler.next(scheduler.free)))
            return
        if self._under_way is not None and self._under_way.done():
            self._ready.extend(self._under_way.result())
            self._under_way = None
        if self._under_way is None and len(self._ready) < 2 and scheduler.waiting:
            self._under_way = self._lane.submit(self._read, scheduler.next(scheduler.group))

    def _read(self, rows: Sequence[Row]) -> list[Read]:
        read: list[Read] = []
        for group in self._reader.alike(rows):
            halving(
                lambda some: read.append(self._reader.read(some)),
                group,
                lambda row, error: row.future.set_exception(error),
            )
        return read

    def _join(self, read: Read) -> None:
        self._scheduler.join(read.rows)
        self._batch.place(read)
        self._settle(list(zip(read.rows, read.choices, strict=True)))

    def _step(self, rows: Sequence[Row]) -> None:
        chosen: list[tuple[Row, Choice]] = []
        halving(
            lambda some: chosen.extend(zip(some, self._batch.step(some), strict=True)),
            rows,
            self._fail,
        )
        self._settle(chosen)

    def _settle(self, chosen: Sequence[tuple[Row, Choice]]) -> None:
        """Let rows go on by what was chosen; those that are finished leave."""
        for row, choice in chosen:
            halving(partial(_take, choice), [row], self._fail)
        finished = [row for row, _ in chosen if row.finish is not None]
        self._scheduler.leave(finished)
        for row in finished:
            if self._history is not None:
                self._history.learn(row.ids)
            row.future.set_result(self._generation(row))

    def _fail(self, row: Row, error: ItemError) -> None:
        self._scheduler.leave([row])
        row.future.set_exception(error)

    def _generation(self, row: Row) -> Generation:
        return Generation(
            text=self._model.text_of(row.ids),
            token_ids=tuple(row.ids),
            logprobs=tuple(row.logprobs),
            finish_reason=row.finish or FinishReason.LENGTH,
            prompt_tokens=len(row.prompt.ids),
            queue_s=row.started - row.submitted,
            model_s=row.vision_s + row.prefill_s + row.decode_s,
            vision_s=row.vision_s,
            prefill_s=row.prefill_s,
            decode_s=row.decode_s,
            forced_tokens=row.forced,
            drafted_tokens=row.drafted,
            passes=row.passes,
        )


def _take(choice: Choice, rows: Sequence[Row]) -> None:
    (row,) = rows
    row.take(*choice)
