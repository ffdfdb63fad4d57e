"""Whole batches, for models that cannot be run token by token."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.engine.backoff import Backoff
from pipeline.engine.blame import halving
from pipeline.engine.memory import MemoryPlan
from pipeline.models.base import Model, ModelInput
from pipeline.records import Generation

if TYPE_CHECKING:
    from pipeline.engine.engine import Pending


class StaticBatches:
    """See `pipeline.engine.engine.Worker`."""

    def __init__(self, model: Model, batch: int) -> None:
        self._model = model
        self._batch = batch
        self._at_once = Backoff(batch, steps=16)
        self._waiting: list[Pending] = []

    def start(self) -> None:
        """Nothing to prepare."""

    def add(self, item: Pending) -> None:
        """Take a request in."""
        self._waiting.append(item)

    def room(self) -> int:
        """How many more requests the next batch has room for."""
        return self._batch - len(self._waiting)

    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    @property
    def plan(self) -> MemoryPlan | None:
        """None: `generate` takes what it takes."""
        return None

    def close(self) -> None:
        """Nothing is under way between two batches."""

    def advance(self) -> None:
        """Answer all that waits."""
        groups: dict[int, list[Pending]] = {}  # the model knows one limit of tokens a batch
        for item in self._waiting:
            groups.setdefault(item.request.max_new_tokens, []).append(item)
        self._waiting = []
        for group in groups.values():
            for part in self._at_once.parts(group):
                halving(self._run, part, lambda item, error: item.future.set_exception(error))

    def _run(self, batch: Sequence[Pending]) -> None:
        started = time.perf_counter()
        inputs = [
            ModelInput(
                prompt=item.request.prompt,
                tiles=item.request.all_tiles,
                constraint=item.request.grammar.start() if item.request.grammar else None,
            )
            for item in batch
        ]
        with self._at_once.trying(len(batch)):
            outputs = self._model.generate(inputs, batch[0].request.max_new_tokens)
        share = (time.perf_counter() - started) / len(batch)
        generations = [
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
        for item, generation in zip(batch, generations, strict=True):
            item.future.set_result(generation)
