"""The wheel: what a user installs holds what a user runs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_has_the_demo_the_schemas_and_the_model(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {
        "pipeline/jobs/demo.yaml",
        "pipeline/jobs/demo/truth.jsonl",
        "pipeline/jobs/finetune_demo.yaml",
        "pipeline/schemas/receipt.v1.json",
        "pipeline/schemas/ticket.v1.json",
        "pipeline/models/nano/model.safetensors",
        "pipeline/models/nano/chat_template.jinja",
        "pipeline/synth/fonts/DejaVuSansMono.ttf",
    } <= names
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    where = [sys.executable, "-c", "import pipeline; print(pipeline.__file__)"]
    found = subprocess.check_output(where, cwd=tmp_path, env=environment, text=True)
    assert found.startswith(str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", "demo", "--runner", "local", "--dry-run"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("30 documents, 34 pages")
