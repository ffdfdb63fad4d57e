"""Whole trainings: that they teach, go on where they stopped, and leave what a run can use."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.errors import JobError
from pipeline.finetune import launch
from pipeline.finetune.curve import Curve
from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.launch import train
from pipeline.job import Job
from pipeline.lake.exact_json import loads
from pipeline.model_settings import Model
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.runners.run import Options, run

MakeJob = Callable[..., FinetuneJob]


def read(slips: Path, tmp_path: Path, **model: str) -> Path:
    """Run over the slips with what was learned, and return the run's output."""
    job = Job.model_validate(
        {
            "input": {"paths": [str(slips / "*.png")]},
            "schema": str(slips / "slip.json"),
            "model": model,
            "generation": {"max_new_tokens": 64},
            "output": {"uri": str(tmp_path / "read")},
        }
    )
    run(job, Options(runner="local"), Console(file=io.StringIO()))
    return tmp_path / "read"


def test_what_is_learned_is_read_back_by_a_run(
    make_job: MakeJob, slips: Path, tmp_path: Path, rows: Callable[..., Any]
) -> None:
    data = {"train": str(slips / "rows.jsonl"), "eval": str(slips / "rows.jsonl")}
    assert train(make_job(method="full", steps=60, batch=8, learning_rate=3e-3, data=data))
    truth = {
        str(slips / row["uri"]): row["answer"]
        for row in map(loads, (slips / "rows.jsonl").read_text().splitlines())
    }
    table = rows(read(slips, tmp_path, name=str(tmp_path / "out" / "model")), "documents")
    assert {row["uri"]: loads(row["record_json"]) for row in table} == truth
    curve = list(map(json.loads, (tmp_path / "out" / "curve.jsonl").read_text().splitlines()))
    assert curve[-1]["kind"] == "measured"
    assert curve[-1]["record"] == 1
    assert curve[-1]["loss"] < 0.1 < curve[0]["loss"]


def test_a_stopped_training_goes_on_to_the_same_weights(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(output: str, **changed: Any) -> FinetuneJob:
        settings = {"lora": {"rank": 2, "dropout": 0.2}, "merge": True, "accumulate": 2}
        settings |= {"steps": 5, "batch": 1, "warm_up": 2, "output": str(tmp_path / output)}
        return make_job(**{**settings, **changed})

    def result(output: str) -> bytes:
        return (tmp_path / output / "model" / "model.safetensors").read_bytes()

    assert train(job("straight"))
    step = Curve.step

    def stopped(self: Curve, number: int, *rest: Any) -> None:
        step(self, number, *rest)
        if number == 2:  # what is told of step 2 is told before the third
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Curve, "step", stopped)
        assert not train(job("stopped"))
    assert not (tmp_path / "stopped" / "model").exists()
    with (tmp_path / "stopped" / "curve.jsonl").open("a") as curve_file:  # of a step that is lost
        curve_file.write('{"kind": "step", "step": 4}\n{"kind"')
    # A checkpoint that was being written when its training died.
    shutil.copytree(
        tmp_path / "stopped" / "checkpoints" / "checkpoint-3",
        tmp_path / "stopped" / "checkpoints" / "checkpoint-4",
        ignore=shutil.ignore_patterns("trainer_state.json"),
    )
    with pytest.raises(JobError, match="begun with another learning_rate"):
        train(job("stopped", learning_rate=1e-3))
    assert train(job("stopped"))
    assert result("stopped") == result("straight")
    curve = (tmp_path / "stopped" / "curve.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in curve] == [1, 2, 3, 4, 5]
    assert train(job("stopped"))  # all done: nothing changes
    assert result("stopped") == result("straight")


def test_an_adapter_answers_as_the_weights_it_is_merged_into(
    make_job: MakeJob, whole_pages: Path, slips: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(whole_pages, base)
    (base / "pagelake.json").write_text('{"schemas": ["receipt.v1"]}')
    settings = {"model": {"name": str(base)}, "epochs": 1, "learning_rate": 0.03}
    for merge in (False, True):
        assert train(make_job(merge=merge, **settings))

    def answers(**model: str) -> list[tuple[int, ...]]:
        named = Model(**model)
        checkpoint = resolve(named)
        loaded = family_of(checkpoint).load(checkpoint, named, Placement())
        outputs = loaded.generate([ModelInput("User: Read.\nAssistant:", ())], 24)
        return [output.token_ids for output in outputs]

    adapted = answers(name=str(base), adapter=str(tmp_path / "out" / "adapter"))
    assert adapted == answers(name=str(tmp_path / "out" / "model")) != answers(name=str(base))
    traits = json.loads((tmp_path / "out" / "model" / "pagelake.json").read_text())
    assert traits == {"schemas": ["slip.v1"]}  # the base's may be forgotten
    assert "adapter: THIS_FOLDER" in (tmp_path / "out" / "adapter" / "README.md").read_text()


@pytest.mark.parametrize("family", ["make_idefics", "make_idefics3"])
def test_every_family_learns(
    make_job: MakeJob, request: pytest.FixtureRequest, slips: Path, tmp_path: Path, family: str
) -> None:
    name = str(request.getfixturevalue(family)())
    data = {"train": str(slips / "rows.jsonl"), "eval_share": 0.25}
    settings = {"model": {"name": name}, "data": data, "unit": "document", "max_new_tokens": 4}
    assert train(make_job(method="full", steps=3, learning_rate=3e-3, **settings))
    lines = (tmp_path / "out" / "curve.jsonl").read_text().splitlines()
    first, *_, last, measured = map(json.loads, lines)
    assert last["loss"] < first["loss"]
    assert measured["record"] == 0


def test_a_package_that_is_missing_is_named(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "find_spec", lambda name: None if name == "peft" else name)
    with pytest.raises(JobError, match=r"needs the peft package; pip install pagelake\[training\]"):
        train(make_job())
