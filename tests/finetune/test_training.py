"""`pagelake finetune`: which training a job file asks for, and where it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ray.train import WorkerGroupError

from pipeline.errors import JobError
from pipeline.training import train


@pytest.fixture
def job_file(slips: Path, whole_pages: Path, tmp_path: Path) -> Path:
    """A job of two steps, beside its data: paths are relative to it."""
    job = {
        "schema": "./slip.json",
        "model": {"name": str(whole_pages)},
        "data": {"train": "rows.jsonl", "eval_share": 0.25},
        "output": str(tmp_path / "out"),
        "method": "full",
        "steps": 2,
    }
    file = slips / "job.yaml"
    file.write_text(yaml.safe_dump(job))
    return file


def test_the_keys_say_which_training_a_job_asks_for(tmp_path: Path, job_file: Path) -> None:
    with pytest.raises(JobError, match=r"or stages, to train .* this job has both"):
        train(str(job_file), ["stages=[]"])
    (tmp_path / "other.yaml").write_text("schema: receipt.v1\n")
    with pytest.raises(JobError, match=r"other\.yaml: .* this job has neither"):
        train(str(tmp_path / "other.yaml"))
    with pytest.raises(JobError, match="--set: steps: 0"):
        train(str(job_file), ["steps=0"])
    job_file.write_text(job_file.read_text() + "weights: 1\n")
    with pytest.raises(JobError, match=r"job\.yaml: weights: unknown key"):
        train(str(job_file))


def test_what_a_worker_raised_is_told_and_not_that_another_missed_it() -> None:
    from pipeline.runners.ray_train import _cause

    failures = {1: RuntimeError("connection closed by peer"), 0: JobError("steps: too many")}
    told = _cause(WorkerGroupError("two of them failed", failures))
    assert isinstance(told, JobError)
    assert str(told) == "steps: too many"
    del failures[0]
    assert "closed by peer" in str(_cause(WorkerGroupError("one of them failed", failures)))
