"""The training loop of one process; `pipeline.pretrain.launch` starts one a core."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.errors import RunError
from pipeline.lake.folders import lock
from pipeline.pretrain import checkpoint as disk
from pipeline.pretrain.checkpoint import Position
from pipeline.pretrain.coach import Coach, Lesson, vision_output
from pipeline.pretrain.collate import Batch, Collator
from pipeline.pretrain.curves import Curve
from pipeline.pretrain.examples import Geometry, dense_example
from pipeline.pretrain.feed import Feed, load
from pipeline.pretrain.job import Stage, TrainJob
from pipeline.pretrain.optimize import Optimizers, rate_factor
from pipeline.pretrain.precision import Precision
from pipeline.pretrain.routing import route
from pipeline.pretrain.scratch import build_model, build_processor, prompts, save_reader
from pipeline.pretrain.validate import validate

_REPORT_SECONDS = 20.0
_FEED_STRIDE = 100_000_000
"""Numbers of documents that one feed may use."""
_FEEDS_A_SEED = 1000
_ROUTING_PAGES = 96
_MOST_BAD_STEPS = 20


class Trainer:
    """Trains a reader as one of `ranks` processes, each on documents of its own.

    All keep the same weights: they add up their gradients, and so agree on time and on stopping.
    Rank 0 reports, validates and saves.
    """

    def __init__(self, job: TrainJob, rank: int, ranks: int, workers: int) -> None:
        self.job, self.rank, self.ranks, self.workers = job, rank, ranks, workers
        self.folder = Path(job.output)
        self.precision = Precision.choose(job.precision)
        shape = job.architecture
        self.geometry = Geometry(shape.grid, shape.patch)
        self.processor = build_processor(shape)
        self.collator = Collator(self.processor, prompts(self.processor))
        self.coach = Coach(build_model(shape, job.seed), shape).to(self.precision.device)
        self.position = Position()
        self.curve = Curve(self.folder)
        self.optimizers: Optimizers
        self.batches: Iterator[Batch]
        self._parent = os.getppid()
        self._stop = False
        self._bad_steps = 0

    def run(self) -> bool:
        """Train until the time is up; return False if told to stop before.

        Raises
        ------
        OutputError
            If another training holds the folder.
        RunError
            If the gradient is not finite, many steps in a row.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._ask_to_stop)
        if self.rank:
            return self._train()
        with lock(self.folder):
            return self._train()

    def _train(self) -> bool:
        self._resume()
        saved = validated = reported = self.position.seconds
        stop = False
        while not stop and self.progress < 1:
            if self._stage_due() != self.position.stage:
                self._begin(self._stage_due())
            lesson, norm, stop = self._step()
            if self.rank:
                continue
            self.curve.note(lesson.parts, norm)
            now = self.position.seconds
            if now - reported > _REPORT_SECONDS:
                reported = now
                self.curve.report(self.position, self._stage.name, self.progress)
            if now - saved > self.job.checkpoint_minutes * 60:
                saved = now
                self._save()
            if self._stage.weights.answer and now - validated > self.job.validate_minutes * 60:
                validated = now
                self._validate()
        if self.rank == 0:
            self._save()
            if not stop and self._stage.weights.answer:
                self._validate()
            self._save_reader()
        return not stop

    @property
    def progress(self) -> float:
        """Share of the time, or of the steps if the job counts those, used; 0 to 1."""
        if self.job.steps is not None:
            return self.position.steps / self.job.steps
        return self.position.seconds / (self.job.minutes * 60)

    @property
    def _stage(self) -> Stage:
        return self.job.stages[self.position.stage]

    def _stage_due(self) -> int:
        """Return the stage that the time is in; more time than before leads back to none."""
        until = 0.0
        for index, stage in enumerate(self.job.stages):
            until += stage.share
            if self.progress < until:
                return max(index, self.position.stage)
        return len(self.job.stages) - 1

    def _begin(self, index: int) -> None:
        self.position.stage, self.position.stage_steps = index, 0
        if self._stage.route:
            self._route()
        if self.ranks > 1:
            for parameter in self.coach.parameters():
                dist.broadcast(parameter.data, 0)
        self._open()

    def _open(self) -> None:
        """Make the stage's optimisers and open its feed."""
        index = self.position.stage
        routed = any(stage.route for stage in self.job.stages[: index + 1])
        self.optimizers = Optimizers(
            self.coach, self._stage.weights, self.job.rates, routed, self.precision.dtype
        )
        feed = Feed(
            self._stage,
            self.collator,
            self.geometry,
            self.job.batch,
            first=(self.job.seed * _FEEDS_A_SEED + self.position.feeds) * _FEED_STRIDE,
            rank=self.rank,
            ranks=self.ranks,
        )
        self.position.feeds += 1
        self.batches = load(feed, self.workers)

    def _route(self) -> None:
        numbers = range(_FEED_STRIDE - _ROUTING_PAGES, _FEED_STRIDE)
        pages = self.collator([dense_example(number, self.geometry) for number in numbers])
        inner = self.coach.model.model
        with torch.no_grad():
            seen = vision_output(inner, pages.pixels.to(self.precision.device))
        share = route(inner, seen)
        if self.rank == 0:
            self.curve.say(f"latents look at their own patch with {share:.0%} of their attention")

    def _step(self) -> tuple[Lesson, Tensor, bool]:
        began = time.monotonic()
        batch = self.precision.place(next(self.batches))
        with self.precision.autocast():
            lesson: Lesson = self.coach(batch, self._stage.weights)
        lesson.loss.backward()  # type: ignore[no-untyped-call]
        flat = self.optimizers.flat
        stop = self._stop or os.getppid() != self._parent  # nobody is left to stop it
        if self.ranks > 1:
            dist.all_reduce(flat)
            flat /= self.ranks
        position = self.position
        norm = self.optimizers.step(
            rate_factor(position.stage_steps, self.progress, self.job.rates),
            wrote=batch.tokens is not None,
        )
        self._bad_steps = 0 if norm.isfinite() else self._bad_steps + 1
        if self._bad_steps > _MOST_BAD_STEPS:
            raise RunError("the gradient is not finite any more; lower the job's rates")
        seconds = torch.tensor([time.monotonic() - began if self.rank == 0 else 0.0, float(stop)])
        if self.ranks > 1:
            dist.all_reduce(seconds)
        position.seconds += float(seconds[0])
        position.documents += len(batch) * self.ranks
        position.steps += 1
        position.stage_steps += 1
        return lesson, norm, bool(seconds[1])

    def _save(self) -> None:
        disk.save(
            self.folder,
            disk.Checkpoint(
                disk.dependencies(self.job),
                self.position,
                self.coach.state_dict(),
                [optimizer.state_dict() for optimizer in self.optimizers.all],
            ),
        )

    def _save_reader(self) -> None:
        save_reader(self.folder / "reader", self.coach.model, self.processor, self.job.architecture)

    def _resume(self) -> None:
        saved = disk.load(self.folder)
        if saved is None:
            if self.rank == 0:
                self.curve.say(f"training {self.job.name} from random weights")
            return
        self.position = saved.position
        self.coach.load_state_dict(saved.weights)
        self._open()
        if saved.optimizers:
            self.optimizers.load(saved.optimizers)
        if self.rank == 0:
            self.curve.go_on_from(self.position)
            self.curve.say(
                f"going on from minute {self.position.seconds / 60:.1f}, "
                f"{self.position.documents:,} documents"
            )

    def _validate(self) -> None:
        scores = validate(
            self.coach.model, self.collator, self.geometry, self.job.validate_documents
        )
        self.curve.validated(self.position, scores)
        self._save_reader()

    def _ask_to_stop(self, number: int, _: Any) -> None:
        self._stop = True
        signal.signal(number, signal.SIG_DFL)  # who asks again will not wait
