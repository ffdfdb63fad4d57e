"""Whole trainings: what they change, how they go on, and that they teach."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.launch import train
from pipeline.job import Job
from pipeline.lake.exact_json import loads
from pipeline.runners.run import Options, run

MakeJob = Callable[..., FinetuneJob]


def test_what_is_learned_is_read_back_by_a_run(
    make_job: MakeJob, slips: Path, tmp_path: Path, rows: Callable[..., Any]
) -> None:
    job = make_job(method="full", steps=60, batch=8, learning_rate=3e-3)
    assert train(job)
    asked = Job.model_validate(
        {
            "input": {"paths": [str(slips / "*.png")]},
            "schema": str(slips / "slip.json"),
            "model": {"name": str(tmp_path / "out" / "model")},
            "output": {"uri": str(tmp_path / "read")},
        }
    )
    summary = run(asked, Options(runner="local"), Console(file=io.StringIO()))
    assert summary.all_ok
    truth = {
        str(slips / row["uri"]): row["answer"]
        for row in map(loads, (slips / "rows.jsonl").read_text().splitlines())
    }
    found = {row["uri"]: loads(row["record_json"]) for row in rows(tmp_path / "read", "documents")}
    assert found == truth
