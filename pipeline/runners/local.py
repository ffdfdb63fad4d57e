"""Everything in one process, a shard at a time: the oracle of tests, and for places without Ray."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from pipeline.lake.plans import documents_of, read_rows, shards_of
from pipeline.models.base import Placement
from pipeline.records import Plan
from pipeline.runners.answerer import Answerer
from pipeline.runners.receipt import Receipt
from pipeline.runners.recipe import Recipe
from pipeline.runners.steps import Committer, Drawer, Planner
from pipeline.runners.watch import UNWATCHED, Watching


class LocalRunner:
    """See `pipeline.runners.runner.Runner`."""

    def __init__(self, recipe: Recipe, watch: Watching = UNWATCHED) -> None:
        self._recipe = recipe
        self._watch = watch
        self._layout = recipe.layout

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def plan(self, listing: str) -> Iterator[Plan]:
        """Plan one document after the other."""
        planner = Planner(self._recipe, self._watch)
        try:
            for table in read_rows(self._layout, listing):
                yield from planner.plan(documents_of(table))
        finally:
            planner.close()

    def starting(self, documents: int, pages: int) -> None:
        """Do nothing: nobody watches from outside."""

    def pages(self, shards: str) -> Iterator[Receipt]:
        """Do one shard after the other."""
        resources = self._recipe.job.resources
        threads = (
            None if resources.cpus_per_actor is None else max(1, int(resources.cpus_per_actor))
        )
        device = "cuda" if resources.gpus_per_actor > 0 else "cpu"
        answerer = Answerer(self._recipe, Placement(device, threads))
        drawer = Drawer(self._recipe, self._watch)
        committer = Committer(self._recipe, self._watch)
        finished = False
        try:
            for table in read_rows(self._layout, shards):
                for shard in shards_of(table):
                    yield committer.commit(answerer.answer(list(drawer.draw(shard))))
            finished = True
        finally:
            drawer.close()
            answerer.close(drain=finished)
