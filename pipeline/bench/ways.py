"""Ways to have the samples of a workload answered, ours and those it is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from pipeline.bench.generate_batch import generate_batch
from pipeline.bench.through import Punctual
from pipeline.bench.workload import Work
from pipeline.engine.engine import Engine, Limits
from pipeline.engine.reader import Reader
from pipeline.engine.row import Row
from pipeline.models.devices import device_errors
from pipeline.records import Generation


@dataclass(frozen=True, slots=True)
class Measured:
    """One pass over the samples; `answers` in their order, none where none were written."""

    seconds: float
    cpu_seconds: float
    answers: tuple[str, ...] = ()
    generations: tuple[Generation, ...] = ()
    memory_plan: str | None = None


def timed(work: Callable[[], Sequence[str]]) -> Measured:
    """Run `work` once."""
    wall, cpu = time.perf_counter(), time.process_time()
    answers = tuple(work())
    return Measured(time.perf_counter() - wall, time.process_time() - cpu, answers)


def by_static_batches(work: Work, batch: int) -> Measured:
    """transformers' `generate` on batches as they come, greedy, under the same grammar.

    With `batch` 1 it is the loop of the model's documentation, but for its grammar.
    """
    inputs = work.inputs()

    def answer() -> list[str]:
        return [
            output.text
            for start in range(0, len(inputs), batch)
            for output in work.model.generate(
                inputs[start : start + batch], max(work.lengths[start : start + batch])
            )
        ]

    return timed(answer)


def by_generate_batch(work: Work, slots: int) -> Measured:
    """transformers' continuous batching, greedy, without a grammar."""
    model = work.stepping
    # Its thread takes the process's default, which an engine's thread has set lower.
    torch.set_num_threads(torch.get_num_threads())
    with device_errors():
        return timed(lambda: [model.text_of(ids) for ids in generate_batch(work, model, slots)])


def by_engine(work: Work, limits: Limits) -> Measured:
    """Our engine, all samples handed in at once."""
    requests = work.requests()
    wall, cpu = time.perf_counter(), time.process_time()
    with Engine(work.model, limits) as engine:
        futures = [engine.submit(request) for request in requests]
        generations = tuple(future.result() for future in futures)
        plan = engine.plan
    return Measured(
        time.perf_counter() - wall,
        time.process_time() - cpu,
        tuple(one.text for one in generations),
        generations,
        None if plan is None else str(plan),
    )


def vision_and_prefill(work: Work, together: int) -> tuple[float, float]:
    """Return the seconds of vision and of prefill alone, `together` samples at a time."""
    model = Punctual(work.stepping)
    vision = prefill = 0.0
    reader = Reader(model, Limits().prefill_tokens, torch.get_num_threads())
    requests = work.requests()
    for start in range(0, len(requests), together):
        rows = [
            Row(
                request=request,
                future=Future(),
                prompt=model.tokenize(request.prompt, request.tiles, 0),
                grammar=None,
                drafter=None,
                stop_ids=frozenset(model.vocabulary.stop_ids),
                submitted=0.0,
            )
            for request in requests[start : start + together]
        ]
        for group in reader.alike(rows):
            reader.read(group)
        vision += sum(row.vision_s for row in rows)
        prefill += sum(row.prefill_s for row in rows)
    return vision, prefill
