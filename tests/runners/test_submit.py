"""What is said of a job that is being sent to a cluster, without one."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from pipeline.cli import main
from pipeline.runners import submit


class Interrupted:
    """A cluster that somebody presses Ctrl-C at, while it takes a job."""

    ray_version = ray.__version__

    def __init__(self, address: str) -> None:
        self.address = address

    def submit(self, *_: Any, **__: Any) -> None:
        raise KeyboardInterrupt


def test_who_stops_while_a_job_is_sent_is_told_its_id_and_how_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {"input": {"paths": "s3://lake/in"}, "schema": "receipt.v1"}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**job, "output": {"uri": "s3://lake/out"}}))
    monkeypatch.setattr(submit, "Cluster", Interrupted)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(
        sys, "argv", ["pagelake", "submit", str(file), "--address", "http://head:8265"]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    first, last = capsys.readouterr().err.splitlines()
    job_id = first.removeprefix("submitting ")
    assert job_id.startswith("mine-")
    assert "may have the job or not" in last
    assert f"pagelake status {job_id} --address http://head:8265" in last
