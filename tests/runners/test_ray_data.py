"""What only the Ray runner does; that its rows are the local runner's is in test_run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import PIL.Image
import pytest
import ray
from ray.core.generated.gcs_pb2 import ActorTableData
from ray.exceptions import RayError

from pipeline.errors import CheckpointError, JobError, PagelakeError, RunError
from pipeline.job import Input, Job
from pipeline.lake.layout import Layout
from pipeline.lake.plans import shards_table, write_rows
from pipeline.records import Shard, Window
from pipeline.runners import placement, ray_data
from pipeline.runners.ray_data import RayRunner, _explained
from pipeline.runners.recipe import Recipe, prepare
from pipeline.stages.discover import Discovery

FAKE = {"family": "fake", "name": "fake?edge=224"}

TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 1, in __call__
    record = loads(text)
{raised}

The above exception was the direct cause of the following exception:

ray.exceptions.UserCodeException: The following error occurred: see above
To change retry attempts, set: this and that
"""


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (
            "pipeline.errors.CheckpointError: model.name: broken",
            CheckpointError,
            "model.name: broken",
        ),
        ("ValueError: no good", RunError, "ValueError: no good"),
        ("decimal.InvalidOperation: [1]", RunError, "decimal.InvalidOperation: [1]"),
        ("pipeline.errors.ItemError: escaped", RunError, "pipeline.errors.ItemError: escaped"),
        ("Killed", RunError, "RayError"),
        (
            "OSError: [Errno 28] No space left on device: '/o/pages/a'",
            RunError,
            "[Errno 28] No space left on device: '/o/pages/a'",
        ),
    ],
)
def test_the_error_behind_rays_is_told(
    raised: str, kind: type[PagelakeError], message: str
) -> None:
    found = _explained(RayError(TRACEBACK.format(raised=raised)))
    assert type(found) is kind
    assert str(found) == message


def test_rays_news_of_workers_stays_off_standard_output(
    make_job: Callable[..., Job],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker = ray._private.worker
    monkeypatch.setattr(worker, "_worker_logs_enabled", True)
    monkeypatch.setattr(ray, "init", lambda **_: None)
    told = {"pid": "raylet", "lines": ["a worker died"], "ip": "", "job": None}
    worker.print_worker_logs(told, sys.stdout)
    assert "a worker died" in capsys.readouterr().out
    ray_data.start(prepare(make_job(["x"], model=FAKE), "run"))
    worker.print_worker_logs(told, sys.stdout)
    assert capsys.readouterr().out == ""


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Job, int], tuple[Recipe, str]]:
    """Prepare a job and write a file of so many one-page shards into its output."""

    def write(job: Job, n_shards: int) -> tuple[Recipe, str]:
        recipe = prepare(job, "run")
        layout = Layout.open(job.output.uri)
        layout.prepare()
        source = tmp_path / "page.png"
        PIL.Image.new("L", (40, 30), 255).save(source)
        listed = next(iter(Discovery(Input(paths=(str(source),)))))
        window = Window("0" * 64, listed.uri, listed.size, listed.modified, 1, (1,))
        table = shards_table([Shard((window,))] * n_shards)
        return recipe, write_rows(layout, "run", "shards", [table])

    return write


def test_a_gpu_job_is_one_that_ray_takes(
    make_job: Callable[..., Job],
    written: Callable[[Job, int], tuple[Recipe, str]],
    ray_session: None,
) -> None:
    recipe, shards = written(make_job(["x"], resources={"gpus_per_actor": 1}), 1)
    with RayRunner(recipe) as runner:
        runner.receipts(shards)  # Ray checks what is asked of it here


@pytest.mark.parametrize("resources", [{"gpus_per_actor": 1}, {"cpus_per_actor": 64}])
def test_what_no_machine_here_has_is_refused(
    make_job: Callable[..., Job],
    written: Callable[[Job, int], tuple[Recipe, str]],
    ray_session: None,
    resources: dict[str, int],
) -> None:
    recipe, shards = written(make_job(["x"], resources=resources), 1)
    with RayRunner(recipe) as runner, pytest.raises(JobError, match="lower resources"):
        next(runner.pages(shards))


def test_a_ray_that_does_not_start_in_time_is_told_in_one_line(
    make_job: Callable[..., Job],
    written: Callable[[Job, int], tuple[Recipe, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_: Recipe) -> None:
        raise Exception("The node timed out\nduring startup")  # as Ray does, no kind of its own

    monkeypatch.setattr(ray_data, "start", start)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    recipe, _ = written(make_job(["x"]), 1)
    with pytest.raises(RunError, match="Ray does not start: The node timed out during startup"):
        RayRunner(recipe).__enter__()


def test_an_actor_that_always_dies_ends_the_run(
    make_job: Callable[..., Job],
    written: Callable[[Job, int], tuple[Recipe, str]],
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dies:
        def __init__(self, recipe: Recipe) -> None:
            pass

        def __call__(self, _: object) -> None:
            os._exit(1)

    monkeypatch.setattr(ray_data, "AnswerActor", Dies)
    monkeypatch.setattr(placement, "_RETRIES", 1)
    recipe, shards = written(make_job(["x"], model=FAKE), 1)
    with RayRunner(recipe) as runner, pytest.raises(RunError):
        next(runner.pages(shards))


def test_what_a_job_asks_of_machines_arrives_at_ray(
    make_job: Callable[..., Job],
    written: Callable[[Job, int], tuple[Recipe, str]],
    ray_session: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Tells:
        def __init__(self, recipe: Recipe) -> None:
            pass

        def __call__(self, _: object) -> None:
            context = ray.get_runtime_context()
            raise JobError(f"{context.get_actor_id()} {context.get_assigned_resources()}")

    monkeypatch.setattr(ray_data, "AnswerActor", Tells)
    resources = {"custom_per_actor": {"reader": 0.25}, "custom_per_task": {"drawer": 0.01}}
    job = make_job(["x"], model=FAKE, resources={**resources, "max_restarts": 7})
    recipe, shards = written(job, 1)
    with RayRunner(recipe) as runner, pytest.raises(JobError) as raised:
        next(runner.pages(shards))
    actor, _, assigned = str(raised.value).partition(" ")
    assert "'reader': 0.25" in assigned
    accessor = ray._private.state.state._connect_and_get_accessor()
    found = accessor.get_actor_info(ray.ActorID.from_hex(actor))
    assert ActorTableData.FromString(found).max_restarts == 7
