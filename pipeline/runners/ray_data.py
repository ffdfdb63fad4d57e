"""Ray Data carries the work: CPU tasks draw beside the actors that hold the model.

Where a setting differs from Ray's default, a comment says why.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Self

# Ray reads these when it is imported. The first keeps tasks that ask for no GPU from warning on
# every start, the second keeps the C++ core's advice to Ray's own developers off the terminal:
# what goes wrong arrives as an exception.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from pipeline import errors
from pipeline.errors import PagelakeError, RunError, UserError
from pipeline.lake.plans import count_rows, plans_of
from pipeline.records import Plan
from pipeline.runners.metrics import RunMetrics
from pipeline.runners.placement import actor_options, task_options
from pipeline.runners.ray_flow import numbered
from pipeline.runners.ray_start import check_resources, configure, refuse_local_files, start
from pipeline.runners.ray_steps import AnswerActor, CommitTask, DrawTask, PlanTask
from pipeline.runners.receipt import Receipt
from pipeline.runners.recipe import Recipe
from pipeline.stages.plan import PAGES_PER_SHARD

_RAISED = re.compile(
    r"(?:(?P<module>[a-z_][\w.]*)\.(?P<name>[A-Z]\w*)|[A-Z]\w*(?:Error|Exception)): (?P<message>.+)"
)
_SYSTEM_ERROR = re.compile(r"\[Errno \d+\] .+")


class RayRunner:
    """See `pipeline.runners.runner.Runner`.

    Starts a private Ray on this machine, or joins the one that `RAY_ADDRESS` names; one that runs
    in this process already is used and left running.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._layout = recipe.layout
        self._started = False
        self._metrics: RunMetrics | None = None

    def __enter__(self) -> Self:
        if not ray.is_initialized():
            try:
                start(self._recipe)
            except Exception as error:  # a bare one too, if the machine is too busy for it
                raise RunError(f"Ray does not start: {' '.join(str(error).split())}") from error
            self._started = True
        refuse_local_files(self._recipe)
        configure()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Its shutdown in the midst of work may end this process by itself, with an exit code of its
        # own. A process that was interrupted is about to end, and Ray's own end with it.
        if self._started and kind is not KeyboardInterrupt:
            ray.shutdown()

    def plan(self, listing: str) -> Iterator[Plan]:
        """Plan documents in CPU tasks."""
        # In the order listed: of files with the same bytes, the first lends its name to the pages.
        DataContext.get_current().execution_options.preserve_order = True
        tables = self._tasks(listing, PlanTask.rows_per_task).map_batches(
            PlanTask(self._recipe, listing),
            batch_size=None,
            batch_format="pyarrow",
            **task_options(self._recipe.job),
        )
        for table in _stream(tables):
            yield from plans_of(table)

    def starting(self, documents: int, pages: int) -> None:
        """Tell Ray's metrics what is to be done, and from then on what is done."""
        self._metrics = RunMetrics(self._recipe.job.name, documents, pages)

    def pages(self, shards: str) -> Iterator[Receipt]:
        """Draw in CPU tasks, answer in actors, parse and commit in CPU tasks.

        A shard is one task and its samples are one block, however many bytes they turn out to be:
        Ray can replay a task only if it gives the same number of blocks again.
        """
        check_resources(self._recipe)
        DataContext.get_current().execution_options.preserve_order = False
        try:
            for table in _stream(self.receipts(shards)):
                for text in table.column("receipt").to_pylist():
                    receipt = Receipt.from_json(text)
                    if self._metrics is not None:
                        self._metrics.committed(receipt)
                    yield receipt
        finally:
            if self._metrics is not None:
                self._metrics.ended()

    def receipts(self, shards: str) -> ray.data.Dataset:
        """Return the dataset of receipts, not yet run."""
        with warnings.catch_warnings():
            # Until Ray names a parameter for it, a limit of tries goes in by the old door.
            warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
            return self._receipts(shards)

    def _receipts(self, shards: str) -> ray.data.Dataset:
        return (
            self._tasks(shards, rows_per_task=1)
            .map_batches(
                DrawTask(self._recipe, shards),
                batch_size=None,
                batch_format="pyarrow",
                **task_options(self._recipe.job),
            )
            .map_batches(
                AnswerActor,
                fn_constructor_args=(self._recipe,),
                batch_size=_samples_a_call(self._recipe),
                batch_format="pyarrow",
                compute=_pool(self._recipe),
                **actor_options(self._recipe.job),
            )
            # Half a core each keeps a two-core laptop whole: a model, a drawing and a commit.
            .map_batches(
                CommitTask(self._recipe),
                batch_size=None,
                batch_format="pyarrow",
                **task_options(self._recipe.job, cpus=0.5),
            )
        )

    def _tasks(self, name: str, rows_per_task: int) -> ray.data.Dataset:
        """One block a task, holding the task's number: it reads so many rows of the file `name`.

        Tasks read their rows themselves: Ray's own Parquet reader starts three kinds of workers
        for it, which costs a small job more than its documents.
        """
        n_rows = count_rows(self._layout, name)
        return numbered(math.ceil(n_rows / rows_per_task))


def _samples_a_call(recipe: Recipe) -> int:
    """Return the fewest samples that a full shard has, of which an actor gets so many at a time.

    Ray wants a number where GPUs are asked for, and would join blocks of fewer samples: shards.
    """
    job = recipe.job
    return max(1, PAGES_PER_SHARD // (job.pages_per_sample if job.unit == "document" else 1))


def _pool(recipe: Recipe) -> ActorPoolStrategy:
    resources = recipe.job.resources
    calls = max(2, math.ceil(resources.batch / _samples_a_call(recipe)) + 1)
    return ActorPoolStrategy(
        min_size=resources.actors.min,
        max_size=resources.actors.max,
        max_concurrent_calls_per_actor=calls,
        # Twice the calls under way keeps an actor fed, and is what makes Ray grow the pool.
        max_tasks_in_flight_per_actor=2 * calls,
        enable_true_multi_threading=True,
    )


def _stream(dataset: ray.data.Dataset) -> Iterator[pa.Table]:
    """Run a dataset, and give its blocks as they come. Raises RunError for whatever Ray raises."""
    try:
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            if table.num_rows:
                yield table
    except RayError as error:
        raise _explained(error) from error


def _explained(error: RayError) -> PagelakeError:
    """Find our own error in Ray's: a task's exception arrives as the text of its traceback."""
    raised = [match for line in str(error).splitlines() if (match := _RAISED.match(line.strip()))]
    for match in reversed(raised):
        kind = (
            getattr(errors, match["name"], None) if match["module"] == "pipeline.errors" else None
        )
        if isinstance(kind, type) and issubclass(kind, (UserError, RunError)):
            return kind(match["message"])
    others = [match for match in raised if not (match["module"] or "").startswith("ray")]
    if not others:
        return RunError(type(error).__name__)
    of_the_system = _SYSTEM_ERROR.search(others[-1]["message"])
    return RunError(of_the_system[0] if of_the_system else others[-1][0])
