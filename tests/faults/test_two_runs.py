"""Two runs on one output: the second is told, and the first one's rows are whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from pipeline import cli

Pagelake = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pagelake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pagelake:
    """Call the command line; return the exit code and what it printed."""

    def go(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pagelake", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return go


@pytest.fixture
def job(tmp_path: Path, demo: Path) -> Path:
    """A job of one page that takes its time."""
    settings = {
        "input": {"paths": [str(demo / "documents" / "image-01.png")]},
        "schema": "receipt.v1",
        "model": {"family": "fake", "name": "fake?edge=224&seconds=300"},
        "output": {"uri": str(tmp_path / "out")},
    }
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_second_of_two_runs_is_told_and_a_killed_one_is_no_hindrance(
    tmp_path: Path, job: Path, pagelake: Pagelake
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-m", "pipeline.cli", "run", str(job), "--runner", "local"]
    first = subprocess.Popen(command, stderr=subprocess.DEVNULL, text=True)
    try:
        wait_for(output / "_pagelake" / "job.yaml", first)
        before = sorted(output.rglob("*"))
        refused = [pagelake("run", str(job), "--runner", "local"), pagelake("clean", str(output))]
    finally:
        first.kill()
        first.wait()
    for code, out, err in refused:
        assert (code, out) == (2, "")
        assert f"pagelake: output {output}: in use since" in err
        assert f"(process {first.pid} on " in err
        assert len(err.splitlines()) == 1
    assert sorted(output.rglob("*")) == before
    code, out, _ = pagelake("clean", str(output), "--json")
    assert code == 0
    assert {kind: found["files"] for kind, found in json.loads(out)["kinds"].items()} == {
        "papers": 1,
        "identities": 1,
        "lock": 1,
    }
