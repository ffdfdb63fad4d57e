from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import JobError
from pipeline.finetune import checkpoint
from pipeline.finetune.job import TrainJob
from pipeline.finetune.launch import train
from pipeline.job import Model
from pipeline.jobfile import load_job
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve

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


def command(folder: Path, *options: str) -> list[str]:
    job = folder / "tiny.yaml"
    job.write_text(yaml.safe_dump(JOB | {"output": str(folder / "out")}))
    return [sys.executable, "-m", "pipeline.cli", "finetune", str(job), *options]


def test_a_training_ends_with_a_reader_that_a_job_can_name(tmp_path: Path) -> None:
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    lines = [json.loads(line) for line in (out / "curve.jsonl").read_text().splitlines()]
    (last,) = [line for line in lines if line["kind"] == "validation"]
    assert {"record", "merchant", "items[].price", "items F1", "CER"} <= last.keys()
    assert (out / "curve.svg").read_text().startswith("<?xml")
    assert "latents look at their own patch" in done.stderr
    settings = Model(name=str(out / "reader"))
    found = resolve(settings)
    assert found.schemas == ("receipt.v1", "text.v1")
    assert found.canvas == (168, 224)
    family = family_of(found)
    model = family.load(found, settings, Placement(threads=1))
    prompt = family.prompt(found, "", 1, "text.v1")
    assert prompt == "<image><ocr>"
    tile = np.full((224, 168, 1), 255, np.uint8)
    (answer,) = model.generate([ModelInput(prompt, ((tile,),))], 4)
    assert answer.prompt_tokens == 192 + 3
    demo = load_job("demo", [f"model.name={out / 'reader'}"])
    assert demo.model.name == str(out / "reader")


def test_a_stopped_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    running = subprocess.Popen(
        command(tmp_path, "--set", "minutes=9", "--set", "processes=2"), stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    # It says nothing before its first report, so the processes' start is waited for.
    deadline = time.monotonic() + 120
    while not _children_compute(running.pid) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(3)
    running.send_signal(signal.SIGTERM)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 130, said
    assert said.strip().endswith("run the same command again to go on")
    saved = checkpoint.load(tmp_path / "out")
    assert saved is not None
    assert saved.position.documents == saved.position.steps * 2 * 2
    assert saved.position.steps > 0

    seconds = saved.position.seconds + 1.5
    again = subprocess.run(
        command(tmp_path, "--set", f"minutes={seconds / 60}", "--set", "processes=2"),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert again.returncode == 0, again.stderr
    assert f"{saved.position.documents:,} documents" in again.stderr.splitlines()[0]
    after = checkpoint.load(tmp_path / "out")
    assert after is not None
    assert after.position.steps > saved.position.steps


def _children_compute(pid: int) -> bool:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(_cpu_seconds(child) > 6 for child in children) >= 2


def _cpu_seconds(pid: str) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_checkpoint_of_another_reader_is_refused(tmp_path: Path) -> None:
    job = TrainJob.model_validate(JOB | {"output": str(tmp_path)})
    other = checkpoint.Checkpoint("{}", checkpoint.Position(), {}, [])
    checkpoint.save(tmp_path, other)
    with pytest.raises(JobError, match="another architecture"):
        train(job)
    (tmp_path / checkpoint.FILE).write_bytes(b"PK")
    with pytest.raises(JobError, match="cannot be read; remove it"):
        train(job)
