"""Continuous batching: rows join and leave the running batch at any step.

Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pipeline.engine.blame import halving
from pipeline.engine.draft import Drafter, History, PageText
from pipeline.engine.request import Request
from pipeline.engine.row import Row
from pipeline.engine.running import Choice, RunningBatch
from pipeline.engine.scheduler import Scheduler
from pipeline.errors import ItemError
from pipeline.models.stepping import SteppingModel
from pipeline.records import FinishReason, Generation

if TYPE_CHECKING:
    from pipeline.engine.engine import Pending


class Stepper:
    """See `pipeline.engine.engine.Worker`."""

    def __init__(
        self, model: SteppingModel, slots: int, prefill_tokens: int, *, speculate: bool
    ) -> None:
        self._model = model
        self._history = History() if speculate else None
        self._scheduler = Scheduler(slots)
        self._batch = RunningBatch(model, slots, prefill_tokens)
        self._stop_ids = frozenset(model.vocabulary.stop_ids)

    def add(self, item: Pending) -> None:
        """Take a request in."""
        halving(self._prepare, [item], lambda item, error: item.future.set_exception(error))

    def room(self) -> int:
        """How many more requests to hold ready."""
        return self._scheduler.slots - len(self._scheduler.waiting)

    def idle(self) -> bool:
        """Whether nothing waits or runs."""
        return not self._scheduler.waiting and not self._scheduler.running

    def advance(self) -> None:
        """Let rows join, and make one step."""
        for group in self._batch.alike(self._scheduler.joining()):
            self._attempt(self._batch.join, group)
        for row, slot in self._scheduler.moves():
            self._batch.move(row, slot)
            self._scheduler.moved(row, slot)
        if self._scheduler.running:
            self._attempt(self._batch.step, list(self._scheduler.running))

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

    def _attempt(
        self, work: Callable[[Sequence[Row]], Sequence[Choice]], rows: Sequence[Row]
    ) -> None:
        failed: list[Row] = []

        def run(some: Sequence[Row]) -> None:
            chosen.extend(zip(some, work(some), strict=True))

        def take(some: Sequence[tuple[Row, Choice]]) -> None:
            ((row, choice),) = some
            row.take(*choice)

        def fail(row: Row, error: ItemError) -> None:
            failed.append(row)
            row.future.set_exception(error)

        chosen: list[tuple[Row, Choice]] = []
        halving(run, rows, fail)
        for pair in chosen:
            halving(take, [pair], lambda pair, error: fail(pair[0], error))
        finished = [row for row in rows if row.finish is not None]
        self._scheduler.leave([*failed, *finished])
        for row in finished:
            if self._history is not None:
                self._history.learn(row.ids)
            row.future.set_result(self._generation(row))

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
