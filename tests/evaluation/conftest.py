"""A real run over a few documents, one of them broken, with its truth."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pipeline.job import Job
from pipeline.runners.run import Options, run

READ = ("image-01.png", "image-02.png", "pdf-01.pdf")


@dataclass(frozen=True)
class FinishedRun:
    """An output, and the truth of its documents: image-03.png is a damaged file."""

    output: Path
    truth: tuple[dict[str, Any], ...]


@pytest.fixture(scope="session")
def receipt_schema() -> dict[str, Any]:
    path = Path(__file__).parent.parent.parent / "schemas" / "receipt.v1.json"
    schema: dict[str, Any] = json.loads(path.read_text())
    return schema


@pytest.fixture(scope="session")
def finished_run(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    home = tmp_path_factory.mktemp("evaluation")
    folder = home / "documents"
    folder.mkdir()
    for name in READ:
        shutil.copy(demo / "documents" / name, folder)
    (folder / "image-03.png").write_bytes((demo / "documents" / "image-03.png").read_bytes()[:200])
    job = Job.model_validate(
        {
            "input": {"paths": [str(folder)]},
            "schema": "receipt.v1",
            "model": {"name": "nano"},
            "output": {"uri": str(home / "out")},
        }
    )
    summary = run(job, Options(runner="local"), Console(file=io.StringIO()))
    assert summary.documents == {"ok": 3, "failed": 1}
    lines = [json.loads(line) for line in (demo / "truth.jsonl").read_text().splitlines()]
    names = {f"documents/{name}" for name in (*READ, "image-03.png")}
    return FinishedRun(home / "out", tuple(line for line in lines if line["uri"] in names))


@pytest.fixture
def write_truth(tmp_path: Path) -> Any:
    """Write lines of truth as JSON Lines, and return the file's path."""

    def write(*lines: Any) -> str:
        path = tmp_path / "truth.jsonl"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        return str(path)

    return write
