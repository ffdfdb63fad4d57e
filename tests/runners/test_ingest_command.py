"""`pagelake ingest` as a scheduler starts it: exit codes, and one process at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import yaml

from pipeline.cli import main
from pipeline.job import Job

OCR = {"task": "ocr", "schema": "text.v1", "model": {"family": "fake", "name": "fake?edge=224"}}
Ingest = Callable[[Job], tuple[int, str, str]]


def command(job: Job) -> list[str]:
    file = Path(job.output.uri).parent / "job.yaml"
    file.write_text(yaml.safe_dump(job.model_dump(mode="json", by_alias=True, exclude_unset=True)))
    return ["ingest", str(file), "--runner", "local", "--json"]


@pytest.fixture
def ingest(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ingest:
    """Run the command in this process; return its exit code and what it says on both streams."""

    def go(job: Job) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pagelake", *command(job)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return go


def test_a_second_process_does_nothing_and_a_killed_one_is_taken_over(
    inbox: Path, make_job: Callable[..., Job], ingest: Ingest
) -> None:
    for name in ("white", "red"):
        PIL.Image.new("RGB", (40, 30), name).save(inbox / f"{name}.png")
    hangs = {**OCR, "model": {"family": "fake", "name": "fake?edge=224&hangs_on=ff0000"}}
    job = make_job([inbox], **hangs)
    first = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", *command(job)], stderr=subprocess.PIPE, text=True
    )
    try:
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("reading:"):
                break
        code, out, err = ingest(job)
    finally:
        first.kill()
        first.communicate()
    assert (code, out) == (99, "")
    assert "in use since" in err
    assert len(err.splitlines()) == 1
    (inbox / "red.png").unlink()
    code, out, _ = ingest(job)
    told = json.loads(out)
    assert (code, told["listed"]["new"], told["documents"]) == (0, 1, {"ok": 1})


def test_exit_codes_and_the_summary_for_machines(
    inbox: Path, make_job: Callable[..., Job], ingest: Ingest
) -> None:
    job = make_job([inbox], **OCR)

    def told() -> tuple[int, dict[str, Any]]:
        code, out, _ = ingest(job)
        return code, json.loads(out)

    code, summary = told()
    assert (code, summary["run_id"], summary["documents"]) == (0, None, {})
    assert summary["listed"]["unchanged"] == 0
    (inbox / "no.pdf").write_text("no PDF")
    code, summary = told()
    assert (code, summary["documents"], summary["listed"]["new"]) == (3, {"failed": 1}, 1)
    code, summary = told()
    assert (code, summary["run_id"], summary["listed"]["unchanged"]) == (0, None, 1)
