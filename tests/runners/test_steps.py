"""What a step makes of an item that is given up: the failure of that item, in its place."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import ItemError, RunError
from pipeline.job import Job
from pipeline.lake.layout import Layout
from pipeline.records import (
    Answer,
    Failed,
    FailureKind,
    FinishReason,
    Generation,
    Sample,
    StageName,
)
from pipeline.runners.recipe import Recipe, prepare
from pipeline.runners.steps import Committer, Drawer, Planner
from pipeline.runners.watch import Unwatched, Watching
from pipeline.stages.discover import Discovery
from pipeline.stages.plan import shards

CRASHED = (FailureKind.STAGE_CRASH, 3)


class GivesUp:
    """Gives up items of one stage whose label has a word in it."""

    def __init__(self, stage: str, word: str) -> None:
        self._given_up = (stage, word)

    @contextmanager
    def item(self, stage: str, key: str, label: str, more_s: float = 0.0) -> Iterator[None]:
        del key, more_s
        wanted, word = self._given_up
        if stage == wanted and word in label:
            raise ItemError(FailureKind.STAGE_CRASH, "3 died", attempt=3)
        yield


@pytest.fixture
def recipe(tmp_path: Path, demo: Path, make_job: Callable[..., Job]) -> Recipe:
    """A job over a document of three pages and one of one."""
    for name in ("multipage-02.pdf", "pdf-01.pdf"):
        shutil.copy(demo / "documents" / name, tmp_path)
    fake = {"family": "fake", "name": "fake?edge=224"}
    prepared = prepare(make_job([tmp_path / "*.pdf"], model=fake), "run")
    Layout.open(prepared.job.output.uri).prepare()
    return prepared


def drawn(recipe: Recipe, watch: Watching) -> list[Sample | Failed]:
    planner, drawer = Planner(recipe), Drawer(recipe, watch)
    try:
        plans = sorted(planner.plan(Discovery(recipe.job.input)), key=lambda p: p.document.uri)
        return [
            item
            for shard in shards((plan, plan.page_numbers) for plan in plans)
            for item in drawer.draw(shard)
        ]
    finally:
        planner.close()
        drawer.close()


def test_a_document_is_given_up_in_planning(recipe: Recipe) -> None:
    planner = Planner(recipe, GivesUp("plan", "multipage"))
    plans = {
        Path(plan.document.uri).stem: plan for plan in planner.plan(Discovery(recipe.job.input))
    }
    planner.close()
    failure = plans["multipage-02"].failure
    assert failure is not None
    assert failure.stage is StageName.DISCOVER
    assert (failure.kind, failure.attempt) == CRASHED
    assert plans["pdf-01"].page_numbers == (1,)


@pytest.mark.parametrize(
    ("stage", "word", "fails"),
    [
        ("rasterize", "page 2 of", [False, True, False, False]),
        ("encode", "page 3 of", [False, False, True, False]),
        ("rasterize", "multipage", [True, True, True, False]),  # opening it, too
    ],
)
def test_pages_are_given_up_alone(recipe: Recipe, stage: str, word: str, fails: list[bool]) -> None:
    found = drawn(recipe, GivesUp(stage, word))
    assert [isinstance(item, Failed) for item in found] == fails
    for item in found:
        if isinstance(item, Failed):
            assert item.failure.stage == stage
            assert (item.failure.kind, item.failure.attempt) == CRASHED


@pytest.fixture
def answers(recipe: Recipe) -> list[Answer | Failed]:
    text = Generation("no JSON", (1,), (0.0,), FinishReason.STOP, 1)
    return [Answer(sample.id, text) for sample in drawn(recipe, Unwatched())]


def test_an_answer_is_given_up_in_parsing(recipe: Recipe, answers: list[Answer | Failed]) -> None:
    receipt = Committer(recipe, GivesUp("parse", "page 2 of")).commit(answers)
    assert receipt.kinds == {"invalid_json": 3, "stage_crash": 1}


def test_rows_that_cannot_be_written_are_no_pages_fault(
    recipe: Recipe, answers: list[Answer | Failed]
) -> None:
    with pytest.raises(RunError, match=r"4 rows from page 1 of .*: 3 died"):
        Committer(recipe, GivesUp("write", "")).commit(answers)


def test_workers_that_hold_no_model_or_a_fake_one_load_no_torch() -> None:
    code = (
        "import sys, pipeline.runners.ray_steps, pipeline.models.idefics2.encoder\n"
        "import pipeline.models.idefics3\n"
        "import pipeline.runners.model_process, pipeline.models.fake\n"
        "print(*sys.modules)"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert {"torch", "transformers", "ray"}.isdisjoint(loaded)
