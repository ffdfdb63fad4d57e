"""Continuous batching: rows join and leave the running batch at any step.

Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pipeline.engine.backoff import Backoff
from pipeline.engine.blame import halving
from pipeline.engine.choose import Choice
from pipeline.engine.draft import Drafter, History, PageText
from pipeline.engine.intake import Intake
from pipeline.engine.memory import MemoryPlan
from pipeline.engine.reader import Read
from pipeline.engine.request import Request
from pipeline.engine.row import Row
from pipeline.engine.running import RunningBatch
from pipeline.engine.scheduler import Scheduler
from pipeline.errors import ItemError
from pipeline.models.context import answer_budget
from pipeline.models.devices import use_threads
from pipeline.models.stepping import SteppingModel
from pipeline.records import FinishReason, Generation

if TYPE_CHECKING:
    from pipeline.engine.engine import Pending


class Stepper:
    """See `pipeline.engine.engine.Worker`."""

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
        self._rows_at_once = Backoff(slots, steps=256)
        self._intake = Intake(model, prefill_tokens, self._scheduler)
        self._batch = RunningBatch(model, slots, self._intake.threads, fixed_steps=fixed_steps)
        self._stop_ids = frozenset(model.vocabulary.stop_ids)
        self._put_off: list[Row] = []

    def start(self) -> None:
        """Take the threads that are left to this one."""
        use_threads(self._intake.threads)

    def add(self, item: Pending) -> None:
        """Take a request in."""
        halving(self._prepare, [item], lambda item, error: item.future.set_exception(error))

    def room(self) -> int:
        """How many more requests to hold ready; none while a row waits for all others to leave."""
        return 0 if self._put_off else self._scheduler.slots - len(self._scheduler.waiting)

    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not (self._scheduler.running or self._intake.busy or self._put_off)

    @property
    def plan(self) -> MemoryPlan | None:
        """How many slots of which length there are, once rows have come."""
        return self._batch.plan

    def advance(self) -> None:
        """Let rows join, and make one step."""
        if self._put_off and not self._holding:
            rows, self._put_off = self._put_off, []
            for row in rows:
                halving(self._admit, [row], lambda row, error: row.future.set_exception(error))
        for read in self._intake.reads():
            self._join(read)
        if not self._intake.busy:
            for row, slot in self._scheduler.moves():
                self._batch.move(row, slot)
                self._scheduler.moved(row, slot)
        if self._scheduler.running:
            self._step(list(self._scheduler.running))
        else:
            self._intake.wait()

    def close(self) -> None:
        """Leave what is under way."""
        self._intake.close()

    def _prepare(self, items: Sequence[Pending]) -> None:
        for item in items:
            request = item.request
            prompt = self._model.tokenize(
                request.prompt, request.all_tiles, len(request.examples), alike=request.alike
            )
            context = self._model.decoder.shape.context
            budget = answer_budget(len(prompt.ids), request.max_new_tokens, context)
            if budget < request.max_new_tokens:
                request = replace(request, max_new_tokens=budget)
            row = Row(
                request=request,
                future=item.future,
                prompt=prompt,
                grammar=request.grammar.start() if request.grammar else None,
                drafter=self._drafter(request),
                stop_ids=self._stop_ids,
                submitted=item.submitted,
                started=time.perf_counter(),
            )
            row.begin()
            if row.finish is not None:  # the grammar leaves nothing to ask the model
                row.future.set_result(self._generation(row))
                continue
            self._admit([row])

    @property
    def _holding(self) -> bool:
        return bool(self._scheduler.running) or self._intake.holding

    def _admit(self, rows: Sequence[Row]) -> None:
        """Let rows wait for their turn; those too long for the slots that others are in, for theirs
        to leave: there may be room for fewer and longer slots then."""
        for row in rows:
            try:
                self._make_room(len(row.prompt.ids) + row.request.max_new_tokens)
            except MemoryError:
                if not self._holding:
                    raise
                self._put_off.append(row)
            else:
                self._scheduler.waiting.append(row)

    def _make_room(self, length: int) -> None:
        scheduler = self._scheduler
        if self.idle():
            self._batch.shorten(length)
        self._batch.make_room(length, keep=self._holding)
        if self._batch.slots != scheduler.slots:
            scheduler.resize(self._batch.slots)

    def _drafter(self, request: Request) -> Drafter | None:
        if self._history is None:
            return None
        model, text = self._model, request.page_text
        page = PageText(text, model.tokens_of, model.text_of) if text else None
        return Drafter(self._history, page)

    def _join(self, read: Read) -> None:
        self._scheduler.join(read.rows)
        placed: list[Read] = []
        halving(partial(self._place, placed), [read], self._fail_all)
        for one in placed:
            self._settle(list(zip(one.rows, one.choices, strict=True)))

    def _place(self, placed: list[Read], reads: Sequence[Read]) -> None:
        for read in reads:
            self._batch.place(read)
            placed.append(read)

    def _step(self, rows: Sequence[Row]) -> None:
        chosen: list[tuple[Row, Choice]] = []

        def work(some: Sequence[Row]) -> None:
            with self._rows_at_once.trying(len(some)):
                chosen.extend(zip(some, self._batch.step(some), strict=True))

        for part in self._rows_at_once.parts(rows):
            halving(work, part, self._fail)
        self._settle(chosen)

    def _settle(self, chosen: Sequence[tuple[Row, Choice]]) -> None:
        """Let rows go on by what was chosen; those that are finished leave."""
        finished: list[Row] = []
        for row, choice in chosen:
            halving(partial(_take, choice, finished), [row], self._fail)
        if finished:
            self._leave(finished)
        for row in finished:
            if self._history is not None:
                self._history.learn(row.ids)
            row.future.set_result(self._generation(row))

    def _leave(self, rows: Sequence[Row]) -> None:
        self._scheduler.leave(rows)
        self._intake.there_is_room()

    def _fail_all(self, read: Read, error: ItemError) -> None:
        for row in read.rows:
            self._fail(row, error)

    def _fail(self, row: Row, error: ItemError) -> None:
        self._leave([row])
        self._batch.clear(row)
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


def _take(choice: Choice, finished: list[Row], rows: Sequence[Row]) -> None:
    (row,) = rows
    row.take(*choice)
    if row.finish is not None:
        finished.append(row)
