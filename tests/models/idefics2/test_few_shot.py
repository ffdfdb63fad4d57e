"""Examples, preamble and template, from the job to the model, on true weights."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.jobfile import load_job
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of
from pipeline.records import Sample
from pipeline.runners.recipe import prepare
from pipeline.runners.run import Options, run
from pipeline.runners.steps import Drawer, Planner
from pipeline.stages.discover import discover
from pipeline.stages.plan import shards

SCHEMA = {
    "type": "object",
    "properties": {"word": {"enum": ["tea", "milk"]}},
    "required": ["word"],
    "additionalProperties": False,
}


@pytest.fixture
def make(tmp_path: Path, demo: Path, checkpoint_folder: Path) -> Callable[..., Job]:
    (tmp_path / "word.json").write_text(json.dumps(SCHEMA))
    documents = sorted((demo / "documents").glob("*.png"))

    def job(**settings: Any) -> Job:
        return Job.model_validate(
            {
                "input": {"paths": [str(path) for path in documents[:2]]},
                "task": "ocr",
                "model": {"name": str(checkpoint_folder), "image_splitting": False},
                "generation": {"max_new_tokens": 16},
                "preamble": "You read.",
                "prompt": "Here: {page} read it.",
                "examples": [{"pages": [str(documents[2])], "answer": "word for word"}],
                "output": {"uri": str(tmp_path / "out")},
                **settings,
            }
        )

    return job


def test_a_run_asks_with_examples_as_generate_would(
    make: Callable[..., Job], rows: Any, tmp_path: Path
) -> None:
    job = make()
    recipe = prepare(job, "test")
    assert recipe.prompts == (
        "<s>System:You read.<end_of_utterance>\n"
        "User:Here: <image> read it.<end_of_utterance>\n"
        "Assistant:word for word<end_of_utterance>\n"
        "User:Here: <image> read it.<end_of_utterance>\nAssistant:",
    )
    planner, drawer = Planner(recipe), Drawer(recipe)
    plans = [(plan, plan.page_numbers) for plan in planner.plan(discover(job.input))]
    samples = [one for shard in shards(plans) for one in drawer.draw(shard)]
    planner.close()
    drawer.close()
    model = family_of(recipe.checkpoint).load(recipe.checkpoint, job.model, Placement(threads=1))
    expected = {
        one.id.uri: model.generate(
            [ModelInput(recipe.prompts[0], [*recipe.examples.tiles, *one.tiles])], 16
        )[0].text
        for one in samples
        if isinstance(one, Sample)
    }
    run(job, Options("local"), Console(file=io.StringIO()))
    assert {row["uri"]: row["raw_text"] for row in rows(tmp_path / "out", "pages")} == expected
    assert len(expected) == 2


def test_other_examples_are_another_job(make: Callable[..., Job], demo: Path) -> None:
    other = [{"pages": [str(demo / "documents" / "receipt-001.png")], "answer": "word for word"}]
    prints = {prepare(make(**change), "t").provenance.fingerprint for change in ({}, {})}
    paths = sorted((demo / "documents").glob("*.png"))
    other = [{"pages": [str(paths[3])], "answer": "word for word"}]
    assert len(prints) == 1
    assert prepare(make(examples=other), "t").provenance.fingerprint not in prints


@pytest.mark.parametrize(
    ("task", "answer", "complaint"),
    [
        ({"task": "ocr"}, {"text": "x"}, r"examples\[0\].answer: task ocr answers with text"),
        ({"task": "extract"}, "tea", r"examples\[0\].answer: write it as an object"),
        ({"task": "extract"}, {"word": "beer"}, r"examples\[0\].answer: does not fit schema word"),
    ],
)
def test_an_answer_that_could_not_be_is_refused(
    make: Callable[..., Job], tmp_path: Path, demo: Path, task: Any, answer: Any, complaint: str
) -> None:
    schema = {"schema": str(tmp_path / "word.json")} if task["task"] == "extract" else {}
    page = next((demo / "documents").glob("*.png"))
    job = make(**task, **schema, examples=[{"pages": str(page), "answer": answer}])
    with pytest.raises(JobError, match=complaint):
        prepare(job, "test")


def test_an_example_that_cannot_be_drawn_is_refused(make: Callable[..., Job]) -> None:
    with pytest.raises(JobError, match=r"examples: /nowhere\.pdf: "):
        prepare(make(examples=[{"pages": "/nowhere.pdf", "answer": "x"}]), "test")


def test_examples_are_beside_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "input: {paths: in}\ntask: ocr\noutput: {uri: out}\n"
        "examples: [{pages: [a.png, s3://b/c.pdf], answer: x}]\n"
    )
    (example,) = load_job(str(tmp_path / "job.yaml")).examples
    assert example.pages == (str(tmp_path / "a.png"), "s3://b/c.pdf")
