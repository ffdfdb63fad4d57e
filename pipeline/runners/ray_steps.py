"""What Ray's workers run: the steps of `pipeline.runners.steps` on Arrow tables. No `ray` here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import __version__
from pipeline.errors import JobError
from pipeline.lake.plans import count_rows, documents_of, plans_table, read_slice, shards_of
from pipeline.models.base import Placement
from pipeline.runners.metrics import ModelMetrics, count_pages
from pipeline.runners.recipe import Recipe
from pipeline.runners.steps import Committer, Drawer, Planner
from pipeline.runners.supervisor import Supervisor
from pipeline.runners.transport import answers_of, answers_table, samples_of, samples_table
from pipeline.runners.watch import Watch, watch_over

T = TypeVar("T", Planner, Drawer, Committer)


class _Slices:
    """What tasks that read rows of one of the run's files share."""

    rows_per_task = 1

    def __init__(self, recipe: Recipe, name: str) -> None:
        self._recipe = recipe.without_prompts
        self._name = name

    def _rows(self, tasks: pa.Table) -> Iterator[pa.Table]:
        layout = self._recipe.layout
        n_rows = count_rows(layout, self._name)
        for number in tasks.column("id").to_pylist():
            start = number * self.rows_per_task
            yield read_slice(layout, self._name, start, min(start + self.rows_per_task, n_rows))


class PlanTask(_Slices):
    """Documents -> plans, in a CPU task."""

    rows_per_task = 32

    def __call__(self, tasks: pa.Table) -> pa.Table:
        """Plan the documents of numbered slices."""
        planner = _held(Planner, self._recipe)
        documents = (d for rows in self._rows(tasks) for d in documents_of(rows))
        return plans_table(list(planner.plan(documents)))


class DrawTask(_Slices):
    """Shards -> samples, in a CPU task."""

    def __call__(self, tasks: pa.Table) -> pa.Table:
        """Draw and encode the shards of numbered slices."""
        drawer = _held(Drawer, self._recipe)
        shards = (shard for rows in self._rows(tasks) for shard in shards_of(rows))
        table = samples_table(sample for shard in shards for sample in drawer.draw(shard))
        count_pages(self._recipe.job.name, "rasterize", len(pc.list_flatten(table["page_numbers"])))
        return table


class AnswerActor:
    """Samples -> answers, in an actor; the model is in a process of its own beside it."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe.without_prompts
        self._watch = watch_over(recipe)
        self._supervisor = Supervisor(recipe, _placement(recipe), self._watch)
        self._metrics = ModelMetrics(recipe.job.name)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Answer a shard's samples; thread-safe."""
        _require_same_pagelake(self._recipe)
        self._watch.refresh()  # another actor may have been brought down by this call
        with self._metrics.queued(table.num_rows):
            answers = self._supervisor.answer(samples_of(table))
        self._metrics.answered(answers, self._supervisor.ended)
        return answers_table(answers)


def _placement(recipe: Recipe) -> Placement:
    """Share this machine's cores out: Ray alone would give a CPU actor one thread."""
    resources = recipe.job.resources
    if resources.gpus_per_actor > 0:
        return Placement("cuda")
    threads = resources.cpus_per_actor or (os.cpu_count() or 1) / 2 / resources.actors.max
    return Placement("cpu", max(1, int(threads)))


class CommitTask:
    """Answers -> a receipt, in a CPU task."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe.without_prompts

    def __call__(self, table: pa.Table) -> pa.Table:
        """Commit a shard's answers."""
        receipt = _held(Committer, self._recipe).commit(answers_of(table))
        return pa.table({"receipt": [receipt.to_json()]})


def _require_same_pagelake(recipe: Recipe) -> None:
    """Raise JobError if this machine would do the run's work in another way than the others."""
    if recipe.provenance.pipeline_version != __version__:
        raise JobError(
            f"machine {socket.gethostname()} has pagelake {__version__}, and the run was begun by "
            f"{recipe.provenance.pipeline_version}; install the same on all machines of the cluster"
        )


_holding: dict[str, tuple[str, Any]] = {}


def _held(kind: type[T], recipe: Recipe) -> T:
    """Return this worker process's own Planner, Drawer or Committer, made once a run and watched.

    A renderer's child outlives the tasks that use it: starting one costs more than most documents.
    """
    _require_same_pagelake(recipe)
    run_id = recipe.provenance.run_id
    for name in [name for name, (held_run, _) in _holding.items() if held_run != run_id]:
        _holding.pop(name)[1].close()
    if "Watch" not in _holding:
        _holding["Watch"] = (run_id, watch_over(recipe))
    watch: Watch = _holding["Watch"][1]
    watch.refresh()  # this task may be tried again because of what it did to another worker
    if kind.__name__ not in _holding:
        _holding[kind.__name__] = (run_id, kind(recipe, watch))
    held: T = _holding[kind.__name__][1]
    return held
