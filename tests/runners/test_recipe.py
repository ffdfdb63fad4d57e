from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import CheckpointError, JobError
from pipeline.job import Job
from pipeline.render.renderer import Renderer
from pipeline.runners.few_shot import Examples
from pipeline.runners.ray_steps import CommitTask, DrawTask, PlanTask
from pipeline.runners.recipe import prepare

MakeJob = Callable[..., Job]
FAKE = {"family": "fake", "name": "fake?edge=32"}


@pytest.mark.parametrize("change", [{"quantization": "nf4"}, {"dtype": "bfloat16"}])
def test_how_weights_are_held_is_part_of_what_a_row_is(
    make_job: MakeJob, change: dict[str, str]
) -> None:
    plain = prepare(make_job(["a.pdf"]), "run")
    other = prepare(make_job(["a.pdf"], model={"name": "nano", **change}), "run")
    ((key, value),) = other.identity.items() - plain.identity.items()
    assert (key, value) == (f"model.{next(iter(change))}", *change.values())
    assert other.provenance.fingerprint != plain.provenance.fingerprint
    assert value in (other.weights or "")


def test_words_that_the_chat_template_leaves_out_are_told() -> None:
    def warned(**settings: Any) -> list[str]:
        job = {"input": {"paths": ["x"]}, "schema": "receipt.v1", "output": {"uri": "y"}}
        return list(prepare(Job.model_validate({**job, **settings}), "run").warnings)

    assert warned() == []
    (told,) = warned(preamble="Only totals.")
    assert told == "preamble: the chat template of 'nano' leaves it out; it is not told"
    assert [one.partition(":")[0] for one in warned(prompt="Read {page}.")] == ["prompt"]


def test_a_bound_on_lists_is_part_of_what_a_row_is() -> None:
    def fingerprint(**settings: Any) -> str:
        job = {"input": {"paths": ["x"]}, "schema": "receipt.v1", "output": {"uri": "y"}}
        job |= {"generation": settings}
        return prepare(Job.model_validate(job), "run").provenance.fingerprint

    assert fingerprint(max_items=10) != fingerprint(max_items=99)


def test_tasks_without_the_model_do_not_carry_prompts_and_examples(make_job: MakeJob) -> None:
    shown = Examples(tiles=((np.zeros((1024, 1024, 3), np.uint8),),))
    recipe = replace(
        prepare(make_job(["a.pdf"], task="ocr", schema="text.v1", model=FAKE), "run"),
        prompts=("Read. " * 100_000,),
        examples=shown,
    )
    tasks = PlanTask(recipe, "x"), DrawTask(recipe, "x"), CommitTask(recipe)
    assert max(len(pickle.dumps(task)) for task in tasks) < 20_000
    assert recipe.question.examples is shown


def test_examples_of_too_many_pages_are_refused_before_they_are_drawn(
    make_job: MakeJob, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    draw = Renderer.draw
    monkeypatch.setattr(Renderer, "draw", lambda self, n: drawn.append(n) or draw(self, n))
    monkeypatch.setattr("pipeline.runners.few_shot._MOST_PAGES", 5)
    three = str(demo / "documents" / "multipage-02.pdf")
    examples = [{"pages": [three], "answer": "x"}, {"pages": [three], "answer": "x"}]
    job = make_job(["a.pdf"], task="ocr", schema="text.v1", model=FAKE, examples=examples)
    with pytest.raises(JobError, match=r"examples: .*multipage-02\.pdf: .* more than 5 pages"):
        prepare(job, "run")
    assert drawn == [1, 2, 3]


def test_rows_name_the_adapter_behind_its_base(make_job: MakeJob, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    with pytest.raises(CheckpointError, match=r"model\.adapter: there is no folder"):
        prepare(make_job(["a.pdf"], model={"name": "nano", "adapter": str(adapter)}), "run")
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    base = prepare(make_job(["a.pdf"]), "run").provenance.model_revision
    tuned = prepare(make_job(["a.pdf"], model={"name": "nano", "adapter": str(adapter)}), "run")
    assert tuned.provenance.model_revision.startswith(f"{base}+")
