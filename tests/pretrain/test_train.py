from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pipeline.errors import JobError, OutputError, RunError
from pipeline.jobfile import load_job
from pipeline.lake.folders import lock
from pipeline.model_settings import Model
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.pretrain import checkpoint
from pipeline.pretrain.job import TrainJob
from pipeline.pretrain.launch import train
from pipeline.pretrain.train import Trainer
from pipeline.prompting import conversation, parsed

TOWER = {"width": 32, "layers": 2, "heads": 2, "feed_forward": 64}
JOB = {
    "name": "tiny",
    "minutes": 0.08,
    "processes": 1,
    "batch": 2,
    "architecture": {"vision": TOWER, "text": TOWER, "resampler_heads": 2},
    "validate_documents": 3,
    "stages": [
        {"name": "eye", "share": 0.3, "dense": 1, "weights": {"eye": 1, "place": 0.3}},
        {"name": "memory", "share": 0.2, "dense": 1, "route": True, "weights": {"memory": 1}},
        {"name": "answers", "share": 0.5, "ocr": 0.3, "weights": {"eye": 1, "answer": 1}},
    ],
}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """A Trainer takes the signals to stop; they are pytest's."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def command(folder: Path, *options: str) -> list[str]:
    job = folder / "tiny.yaml"
    job.write_text(yaml.safe_dump(JOB | {"output": str(folder / "out")}))
    return [sys.executable, "-m", "pipeline.cli", "finetune", str(job), *options]


def test_a_stopped_training_goes_on_and_ends_with_a_reader(tmp_path: Path) -> None:
    out = tmp_path / "out"
    running = subprocess.Popen(
        command(tmp_path, "--set", "minutes=9", "--set", "processes=2"),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    assert "from random weights" in running.stderr.readline()
    time.sleep(1.5)  # some steps
    running.send_signal(signal.SIGTERM)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 130, said
    assert said.strip().endswith("run the same command again to go on")
    saved = checkpoint.load(out)
    assert saved is not None
    assert saved.position.documents == saved.position.steps * 2 * 2
    assert saved.position.steps > 0

    seconds = saved.position.seconds + 1
    again = subprocess.run(
        command(tmp_path, "--set", f"minutes={seconds / 60}", "--set", "processes=2"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert again.returncode == 0, again.stderr
    assert f"{saved.position.documents:,} documents" in again.stderr.splitlines()[0]
    after = checkpoint.load(out)
    assert after is not None
    assert after.position.steps > saved.position.steps
    lines = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    (last,) = [line for line in lines if line["kind"] == "validation"]
    assert {"record", "merchant", "items[].price", "items F1", "CER"} <= last.keys()
    assert (out / "curve.svg").read_text().startswith("<?xml")
    a_job_can_name(out / "reader")


def a_job_can_name(reader: Path) -> None:
    settings = Model(name=str(reader))
    found = resolve(settings)
    assert found.schemas == ("receipt.v1", "text.v1")
    assert found.canvas == (168, 224)
    family = family_of(found)
    model = family.load(found, settings, Placement(threads=1))
    prompt = family.prompt(found, settings, conversation(parsed("{page}"), 1), "text.v1")
    assert prompt == "<image><ocr>"
    tile = np.full((224, 168, 1), 255, np.uint8)
    (answer,) = model.generate([ModelInput(prompt, ((tile,),))], 4)
    assert answer.prompt_tokens == 192 + 3
    demo = load_job("demo", [f"model.name={reader}"])
    assert demo.model.name == str(reader)


def made(folder: Path, **changes: object) -> TrainJob:
    return TrainJob.model_validate(JOB | {"output": str(folder), **changes})


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Route by few pages, and let a reader that has learned nothing not babble on for long."""
    monkeypatch.setattr("pipeline.pretrain.train._ROUTING_PAGES", 16)
    monkeypatch.setattr("pipeline.pretrain.validate._LONGEST", 16)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    saved = checkpoint.load(folder)
    assert saved is not None
    return saved.weights


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(ours[name], theirs[name]) for name in ours.keys() | theirs.keys())


def test_counted_steps_give_the_same_weights_and_another_seed_others(
    tmp_path: Path, brief: None
) -> None:
    readers = {}
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        job = made(tmp_path / name, steps=6, seed=seed)
        (tmp_path / name).mkdir()
        assert Trainer(job, 0, 1, workers=0).run()
        readers[name] = weights_of(tmp_path / name)
    assert same(readers["one"], readers["two"])
    assert not same(readers["one"], readers["other"])


def test_going_on_restores_all_there_is_and_reads_no_document_twice(
    tmp_path: Path, brief: None
) -> None:
    job = made(tmp_path, steps=6)
    first = Trainer(job, 0, 1, workers=0)
    assert first.run()
    second = Trainer(made(tmp_path, steps=60), 0, 1, workers=0)
    second._resume()
    assert same(second.coach.state_dict(), first.coach.state_dict())
    for ours, theirs in zip(second.optimizers.all, first.optimizers.all, strict=True):
        before, after = theirs.state_dict()["state"], ours.state_dict()["state"]
        assert before.keys() == after.keys()
        for key in before:
            assert all(torch.equal(before[key][name], after[key][name]) for name in before[key])
    assert (second.position.documents, second.position.steps) == (12, 6)
    assert second.position.feeds == first.position.feeds + 1
    old, new = next(first.batches), next(second.batches)
    assert not torch.equal(old.tiles, new.tiles)


def test_more_time_than_before_leads_back_to_no_stage(tmp_path: Path, brief: None) -> None:
    assert Trainer(made(tmp_path, steps=6), 0, 1, workers=0).run()
    later = Trainer(made(tmp_path, steps=100), 0, 1, workers=0)
    later._resume()
    assert later.progress < 0.1
    assert later._stage_due() == later.position.stage == 2


def test_a_gradient_that_is_not_finite_costs_a_step_and_many_the_training(tmp_path: Path) -> None:
    trainer = Trainer(made(tmp_path, steps=100), 0, 1, workers=0)
    trainer._begin(0)
    before = {name: weight.clone() for name, weight in trainer.coach.state_dict().items()}
    with torch.no_grad():
        trainer.coach.eye.bias.fill_(torch.nan)
    poisoned = trainer.coach.state_dict()
    trainer._step()
    after = trainer.coach.state_dict()
    assert same(
        {name: weight for name, weight in after.items() if name != "eye.bias"},
        {name: weight for name, weight in before.items() if name != "eye.bias"},
    )
    assert poisoned.keys() == after.keys()
    for _ in range(19):
        trainer._step()
    with pytest.raises(RunError, match="not finite any more"):
        trainer._step()


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    before = dict(os.environ)
    with lock(tmp_path), pytest.raises(OutputError, match="another training writes"):
        train(made(tmp_path))
    assert dict(os.environ) == before
    with pytest.raises(OutputError, match="is no local folder"):
        train(made(tmp_path, output="s3://bucket/reader"))


def test_a_checkpoint_of_another_reader_is_refused(tmp_path: Path) -> None:
    made_for = checkpoint.dependencies(made(tmp_path, seed=5))
    other = checkpoint.Checkpoint(made_for, checkpoint.Position(), {}, [])
    checkpoint.save(tmp_path, other)
    with pytest.raises(JobError, match="made with another seed; write to another output"):
        train(made(tmp_path))
    (tmp_path / checkpoint.FILE).write_bytes(b"PK")
    with pytest.raises(JobError, match="damaged one; remove it"):
        train(made(tmp_path))
