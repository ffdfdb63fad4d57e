"""Samples that kill or hang the model's process, and who pays for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.errors import CheckpointError, RunError
from pipeline.job import Job, Limits
from pipeline.models.base import Placement
from pipeline.printed import printed_text
from pipeline.records import Answer, Failed, FailureKind, Sample, SampleId
from pipeline.runners.blank import blank_sample
from pipeline.runners.few_shot import Examples
from pipeline.runners.notes import Notes
from pipeline.runners.recipe import prepare
from pipeline.runners.steps import named
from pipeline.runners.supervisor import Supervisor
from pipeline.runners.watch import UNWATCHED, Watch, Watching

GOOD, DEADLY, HANGING, BAD = "20a020", "ff0000", "00ff00", "0000ff"
NAME = f"fake?edge=32&dies_on={DEADLY}&hangs_on={HANGING}&fails_on={BAD}"

Supervise = Callable[..., Supervisor]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    started: list[Supervisor] = []

    def start(name: str = NAME, watch: Watching = UNWATCHED, **limits: float) -> Supervisor:
        job: dict[str, Any] = {
            "input": {"paths": ["x"]},
            "task": "ocr",
            "model": {"family": "fake", "name": name},
            "output": {"uri": str(tmp_path)},
            "limits": {"item_s": 2, **limits},
        }
        recipe = prepare(Job.model_validate(job), "run")
        started.append(Supervisor(recipe, Placement("cpu", 1), watch))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.close()


def page(number: int, colour: str = GOOD) -> Sample:
    tile = np.full((8, 8, 3), list(bytes.fromhex(colour)), np.uint8)
    tile[-1, -1] = number
    return Sample(SampleId("0" * 64, "x", 1000, (number,)), ((tile,),))


def kinds(outcomes: list[Answer | Failed]) -> dict[int, tuple[FailureKind, int]]:
    return {
        one.id.page_numbers[0]: (one.failure.kind, one.failure.attempt)
        for one in outcomes
        if isinstance(one, Failed)
    }


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "pipeline.runners.model_process" in child.cmdline()
    ]


def test_a_sample_that_kills_the_process_fails_and_all_others_are_answered(
    supervise: Supervise,
) -> None:
    colours = {5: BAD, 12: DEADLY}
    asked = [[page(n, colours.get(n, GOOD)) for n in range(k, k + 5)] for k in (0, 5, 10, 15)]
    with ThreadPoolExecutor(4) as pool:
        answered = list(pool.map(supervise(attempts=2).answer, asked))
    assert [[s.id for s in some] for some in asked] == [[o.id for o in some] for some in answered]
    outcomes = [outcome for some in answered for outcome in some]
    assert kinds(outcomes) == {
        5: (FailureKind.MODEL_ERROR, 1),
        12: (FailureKind.MODEL_CRASH, 2),
    }
    (died,) = [o for o in outcomes if isinstance(o, Failed) and o.id.page_numbers == (12,)]
    assert died.failure.message == "the model's process died of SIGKILL"


@pytest.mark.parametrize(("prompt", "images"), [("Read {page}", 1), ("Read {text}", 0)])
def test_the_model_is_tried_with_what_the_job_shows_it(
    tmp_path: Path, prompt: str, images: int
) -> None:
    job = {
        "input": {"paths": ["x"]},
        "task": "ocr",
        "model": {"family": "fake", "name": "fake"},
        "output": {"uri": str(tmp_path)},
    }
    sample = blank_sample(prepare(Job.model_validate({**job, "prompt": prompt}), "run"))
    assert len(sample.tiles) == images
    assert printed_text(sample.words) == "blank"


def test_large_examples_reach_a_model_that_starts_slower_than_its_deadline(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Examples(tiles=((np.zeros((2048, 2048, 3), np.uint8),),))
    monkeypatch.setattr("pipeline.runners.recipe.draw_examples", lambda *_, **__: shown)
    monkeypatch.setattr("pipeline.runners.supervisor._LOADING_S", 20)
    assert kinds(supervise(item_s=0.3).answer([page(3)])) == {}


def test_a_sample_that_hangs_the_model_is_ended_by_its_deadline(supervise: Supervise) -> None:
    supervisor = supervise(item_s=0.5, attempts=1)
    assert kinds(supervisor.answer([page(2, HANGING)])) == {2: (FailureKind.MODEL_TIMEOUT, 1)}
    assert kinds(supervisor.answer([page(3)])) == {}
    assert len(children()) == 1


def test_a_process_killed_from_outside_costs_nothing(supervise: Supervise) -> None:
    supervisor = supervise(f"{NAME}&seconds=0.2", attempts=1, item_s=60)
    assert kinds(supervisor.answer([page(0)])) == {}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(supervisor.answer, [page(n) for n in range(5)])
        time.sleep(0.5)
        os.kill(children()[0].pid, signal.SIGKILL)
        assert kinds(waiting.result(60)) == {}


def test_a_model_that_answers_nothing_ends_the_run_and_blames_no_sample(
    supervise: Supervise,
) -> None:
    supervisor = supervise("fake?edge=32&dies_on=ffffff", attempts=1)
    with pytest.raises(RunError, match="on a blank page too: the model answers nothing"):
        supervisor.answer([page(1, "ffffff")])
    with pytest.raises(RunError, match="answers nothing"):
        supervisor.answer([page(9)])
    assert children() == []


def test_a_model_that_does_not_load_says_why(supervise: Supervise) -> None:
    with pytest.raises(CheckpointError, match="seconds must be a number"):
        supervise("fake?seconds=soon").answer([page(1)])


def test_a_process_that_dies_while_it_loads_ends_the_run_after_three_tries(
    supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RunError, match="exited with status 1, 3 times, while the model was loaded"):
        supervise().answer([page(1)])


def test_what_ended_actors_before_is_tried_alone_or_not_at_all(
    supervise: Supervise, tmp_path: Path
) -> None:
    limits, asked = Limits(attempts=2), [page(1), page(2), page(3)]
    home = Notes(str(tmp_path))
    for sample, times in ((asked[1], 1), (asked[2], 2)):
        for _ in range(times):  # what an actor that was killed leaves behind
            script = (
                "import os, signal, sys\n"
                "from pipeline.job import Limits\n"
                "from pipeline.runners.notes import Notes\n"
                "from pipeline.runners.watch import Watch\n"
                "Watch(Notes(sys.argv[1]), Limits()).tell('generate', sys.argv[2], 'page', 1)\n"
                "os.kill(os.getpid(), signal.SIGKILL)\n"
            )
            key, _ = named(sample.id, sample.id.page_numbers)
            subprocess.run([sys.executable, "-c", script, str(tmp_path), key], check=False)
    try:
        outcomes = supervise(watch=Watch(home, limits), attempts=2).answer(asked)
    finally:
        home.forget(record=True)
    assert kinds(outcomes) == {3: (FailureKind.STAGE_CRASH, 2)}
    assert [one.attempts for one in outcomes if isinstance(one, Answer)] == [1, 2]


def test_the_process_ends_with_its_supervisor(supervise: Supervise) -> None:
    supervisor = supervise()
    supervisor.answer([page(1)])
    (process,) = children()
    supervisor.close()
    assert not process.is_running()
    with pytest.raises(RunError, match="was ended"):
        supervisor.answer([page(1)])
