"""Small jobs over real files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.job import Job
from pipeline.runners.run import Options, run
from pipeline.runners.summary import Summary


@pytest.fixture
def make_job(tmp_path: Path) -> Callable[..., Job]:
    """Build a job over `paths`, writing to `out` in the test's folder unless told otherwise."""

    def make(paths: Any, **settings: Any) -> Job:
        chosen: dict[str, Any] = {
            "schema": "receipt.v1",
            "model": {"name": "nano"},
            "output": {"uri": str(tmp_path / "out")},
            **settings,
        }
        sources = {"paths": [str(path) for path in paths], **chosen.pop("input", {})}
        return Job.model_validate({"input": sources, **chosen})

    return make


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A folder that documents arrive in."""
    made = tmp_path / "in"
    made.mkdir()
    return made


@pytest.fixture
def run_job() -> Callable[..., Summary]:
    """Run a job quietly, in this process unless told otherwise."""

    def go(job: Job, **options: Any) -> Summary:
        return run(job, Options(**{"runner": "local", **options}), Console(file=io.StringIO()))

    return go
