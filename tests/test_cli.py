"""The command line as a user meets it: a process, its streams and its exit code."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

PAGELAKE = [sys.executable, "-m", "pipeline.cli"]


def pagelake(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PAGELAKE, *arguments], capture_output=True, text=True, check=False, cwd=cwd, timeout=240
    )


@pytest.fixture
def job_file(tmp_path: Path, demo: Path) -> Path:
    """A job over two images, its output beside it. The fake model spares processes torch."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("image-01.png", "image-02.png"):
        shutil.copy(demo / "documents" / name, folder)
    job = {
        "input": {"paths": ["in"]},
        "task": "ocr",
        "model": {"family": "fake", "name": "fake?edge=224"},
        "output": {"uri": str(tmp_path / "out")},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def test_help_is_instant_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = pagelake("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "run" in done.stdout
    # 0.25 s here; the limit is far above what noise adds, and far below what importing torch costs.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0
    heavy = {"torch", "transformers", "ray", "pyarrow", "pypdfium2"}
    code = "import sys, pipeline, pipeline.cli; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert heavy.isdisjoint(loaded)


def test_a_run_prints_people_s_text_to_stderr_and_json_to_stdout(job_file: Path) -> None:
    job = yaml.safe_load(job_file.read_text())
    job |= {"task": "extract", "schema": "receipt.v1", "model": {"name": "nano"}}
    job_file.write_text(yaml.safe_dump(job))
    done = pagelake("run", str(job_file), "--runner", "local", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["documents"] == {"ok": 2}
    assert summary["all_ok"] is True


def test_a_second_run_says_what_the_first_has_finished(job_file: Path) -> None:
    assert pagelake("run", str(job_file), "--runner", "local").returncode == 0
    again = pagelake("run", str(job_file), "--runner", "local")
    assert again.returncode == 0
    assert again.stdout == ""
    assert "2 of them were finished by an earlier run" in again.stderr
    assert "duckdb -c" in again.stderr


def test_documents_that_are_not_ok_make_exit_code_3(job_file: Path) -> None:
    (job_file.parent / "in" / "cut.pdf").write_bytes(b"%PDF-1.7\nnothing")
    done = pagelake("run", str(job_file), "--runner", "local")
    assert done.returncode == 3
    assert "1 x unreadable" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda job: job.update(modell={}), "job.yaml: modell: unknown key; did you mean model?"),
        (lambda job: job["input"].update(paths=["nowhere"]), "nowhere' is no file or folder"),
        (lambda job: job.update(task="extract", schema="recipt.v1"), "did you mean receipt.v1?"),
        (lambda job: job.update(model={"name": "./nothing"}), "no checkpoint at"),
        (lambda job: job.update(model={"dtype": "flaot32"}), "model.dtype"),
        (lambda job: job.update(output={"uri": "/proc/nowhere"}), "cannot be written"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    job_file: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    job = yaml.safe_load(job_file.read_text())
    change(job)
    job_file.write_text(yaml.safe_dump(job))
    done = pagelake("run", str(job_file), "--runner", "local")
    assert done.returncode == 2
    assert complaint in done.stderr
    last = [line for line in done.stderr.splitlines() if line.startswith("pagelake: ")]
    assert len(last) == 1
    assert "Traceback" not in done.stderr


def test_a_schema_that_no_grammar_can_hold_is_refused_by_name(job_file: Path) -> None:
    schema = job_file.parent / "unique.json"
    schema.write_text(
        json.dumps(
            {
                "type": "object",
                "properties": {"tags": {"type": "array", "uniqueItems": True}},
                "required": ["tags"],
            }
        )
    )
    changes = ["--set", "task=extract", "--set", f"schema={schema}"]
    done = pagelake("run", str(job_file), "--runner", "local", *changes)
    assert done.returncode == 2
    assert "schema unique" in done.stderr
    assert "uniqueItems" in done.stderr


def test_a_dry_run_counts_and_writes_nothing(job_file: Path) -> None:
    done = pagelake("run", str(job_file), "--runner", "local", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["documents"], plan["pages"]) == (2, 2)
    assert not (job_file.parent / "out").exists()


def test_the_job_schema_accepts_the_demo_and_refuses_a_wrong_key(demo: Path) -> None:
    schema = json.loads(pagelake("job", "schema").stdout)
    job = yaml.safe_load((demo.parent / "demo.yaml").read_text())
    jsonschema.validate(job, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**job, "modell": {}}, schema)


def test_doctor_finds_what_this_machine_has() -> None:
    done = pagelake("doctor")
    assert done.returncode == 0, done.stdout
    for name in ("python", "ray", "torch", "poppler", "device", "bundled model"):
        assert f" {name}: " in done.stdout


def test_ctrl_c_is_told_whatever_becomes_of_what_it_interrupts() -> None:
    code = (
        "import sys, time\nfrom pipeline.terminal import interruptible\n"
        "with interruptible():\n    try:\n        print('ready', flush=True)\n"
        "        time.sleep(60)\n    except KeyboardInterrupt:\n        sys.exit(1)\n"
    )
    process = subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, "run the same command again" in said) == (130, True)


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(job_file: Path, runner: str) -> None:
    slow = ["--set", "model.name=fake?edge=224&seconds=30"]
    process = subprocess.Popen(
        # Whoever runs these tests in the background may have had Ctrl-C ignored.
        ["env", "--default-signal=INT", *PAGELAKE, "run", str(job_file), "--runner", runner, *slow],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr is not None
    said = ""
    while "reading" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    said += process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "run the same command again to continue" in said
    assert not (job_file.parent / "out" / "_pagelake" / "lock").exists()
    assert "Traceback" not in said
