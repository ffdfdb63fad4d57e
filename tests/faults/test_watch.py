"""Whole runs in which workers die of pages, or hang on them: those pages fail, and nothing else."""

from __future__ import annotations

import ctypes
import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from rich.console import Console

from pipeline.job import Job
from pipeline.lake.layout import Layout
from pipeline.lake.plans import shards_table, write_rows
from pipeline.records import Plan, Shard
from pipeline.runners.ray_data import RayRunner
from pipeline.runners.receipt import sums
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.run import Options, run
from pipeline.runners.steps import Planner
from pipeline.runners.watch import Watch, notes_of
from pipeline.stages.discover import Discovery
from pipeline.stages.plan import shards

Rows = Callable[[Path | str, str], list[dict[str, Any]]]

DEADLY, ENDLESS = 7, 9
"""The greys of pages that do harm."""


def harmful(encoder: Any) -> Any:
    """Return the encoder with a fault that pages of some greys bring out."""

    class Harmful(type(encoder)):  # type: ignore[misc]
        def encode(self, image: Any) -> Any:
            if image.min() == DEADLY:
                os.kill(os.getpid(), signal.SIGSEGV)
            if image.min() == ENDLESS:
                ctypes.PyDLL(None).sleep(10_000)  # holds Python's lock
            return super().encode(image)

    return Harmful(**{name: getattr(encoder, name) for name in encoder.__dataclass_fields__})


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """Make a job over pages of some greys."""

    def make(*greys: int, **limits: float) -> Job:
        folder = tmp_path / "in"
        folder.mkdir()
        for number, grey in enumerate(greys):
            PIL.Image.new("L", (120, 90 + number), grey).save(folder / f"{number}.png")
        return Job.model_validate(
            {
                "input": {"paths": [str(folder)]},
                "task": "ocr",
                "model": {"family": "fake", "name": "fake?edge=224"},
                "limits": limits,
                "output": {"uri": str(tmp_path / "out")},
            }
        )

    return make


def planned(recipe: Recipe) -> Iterator[Plan]:
    planner = Planner(recipe)
    yield from planner.plan(sorted(Discovery(recipe.job.input), key=lambda found: found.uri))
    planner.close()


def one_a_shard(recipe: Recipe) -> str:
    layout = Layout.open(recipe.job.output.uri)
    layout.prepare()
    whole = shards((plan, plan.page_numbers) for plan in planned(recipe))
    single = [Shard((window,)) for shard in whole for window in shard.windows]
    return write_rows(layout, "run", "shards", [shards_table(single)])


def test_pages_that_end_their_workers_fail_alone(
    job: Callable[..., Job], rows: Rows, ray_session: None
) -> None:
    recipe = prepare(job(200, DEADLY, 90, ENDLESS, attempts=1, item_s=1.5), "run")
    file = one_a_shard(recipe)
    recipe = replace(recipe, encoder=harmful(recipe.encoder))
    notes = notes_of(recipe)
    watch = Watch(notes, recipe.job.limits)
    watch.start()
    with RayRunner(recipe) as runner:
        receipt = sums(runner.pages(file))
    watch.close()
    notes.forget(record=True)
    assert receipt.states == {"ok": 2, "failed": 2}
    failed = [row for row in rows(recipe.job.output.uri, "pages") if row["state"] == "failed"]
    assert {
        Path(row["uri"]).name: (row["failure_stage"], row["failure_kind"], row["attempts"])
        for row in failed
    } == {"1.png": ("encode", "stage_crash", 1), "3.png": ("encode", "stage_timeout", 1)}


HANGING = """
import sys, time
from rich.console import Console
from pipeline.job import Job
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.runners.run import Options, run
Idefics2Encoder.encode = lambda self, image: time.sleep(60)
run(Job.model_validate_json(sys.argv[1]), Options(runner="local"), Console(stderr=True))
"""


def test_a_local_run_ends_at_a_page_that_hangs_and_the_next_goes_on_without_it(
    job: Callable[..., Job], rows: Rows
) -> None:
    made = job(200, 90, attempts=1, item_s=0.5)
    command = [sys.executable, "-c", HANGING, made.model_dump_json(by_alias=True)]
    hung = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert hung.returncode == 1
    last = hung.stderr.splitlines()[-1]
    assert re.fullmatch(
        r"pagelake: page 1 of .*0\.png did not end in 0\.5 s in stage encode \(attempt 1 of 1\): "
        "ended; run again to go on",
        last,
    )
    summary = run(made, Options(runner="local"), Console(file=io.StringIO()))
    assert summary.pages == {"ok": 1, "truncated": 0, "failed": 1}
    assert summary.failures == {"stage_timeout": 1}
    again = run(made, Options(runner="local"), Console(file=io.StringIO()))
    assert again.all_ok, "what a run counted outlives it"
