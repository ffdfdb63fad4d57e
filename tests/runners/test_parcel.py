"""What a submitted job takes along is enough to run it elsewhere, as it would have run here."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline.errors import JobError
from pipeline.jobfile import load_job
from pipeline.runners.parcel import pack_job, pack_source, pack_wheel, wheel_version
from pipeline.schema import load_schema

MODEL = """
from pydantic import BaseModel, Field

class Receipt(BaseModel):
    vendor: str = Field(description="Name of the shop")
    total: float | None = None
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a job, a schema and a pydantic model, and a folder to pack into."""
    (tmp_path / "forms.py").write_text(MODEL)
    (tmp_path / "form 1.json").write_text(
        '{"type": "object", "properties": {"total": {"$ref": "#/$defs/Sum"}}, '
        '"$defs": {"Sum": {"type": "number"}}}'
    )
    (tmp_path / "parcel").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("schema", ["./form 1.json", "forms:Receipt", "receipt.v1"])
def test_a_packed_job_asks_the_same_on_another_machine(here: Path, schema: str) -> None:
    settings = {
        "input": {"paths": "s3://lake/in", "password_env": "NOT_HERE"},
        "schema": schema,
        "output": {"uri": "s3://lake/out"},
    }
    (here / "mine.yaml").write_text(yaml.safe_dump(settings))
    job = load_job("mine.yaml", ["generation.max_new_tokens=77"], elsewhere=True)
    pack_job(job, here / "parcel")
    meant = load_schema(job.schema_ref)
    # Nothing of this folder is there on the other machine.
    for file in ("forms.py", "form 1.json", "mine.yaml"):
        (here / file).unlink()
    sys.modules.pop("forms", None)
    there = load_job(str(here / "parcel" / "job.yaml"), elsewhere=True)
    found = load_schema(there.schema_ref)
    assert (found.id, found.sha256) == (meant.id, meant.sha256)
    same = {"schema_": ""}
    assert there.model_copy(update=same) == job.model_copy(update=same)
    assert there.generation.max_new_tokens == 77


def test_a_sent_source_finds_its_schemas_and_jobs(tmp_path: Path) -> None:
    package = pack_source(tmp_path)
    assert not list(package.rglob("__pycache__"))
    code = (
        "from pipeline.packaged import packaged_file as f; "
        "print(f('schemas', 'receipt.v1').is_file(), f('jobs', 'demo').is_file())"
    )
    found = subprocess.check_output(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, text=True
    )
    assert found.split() == ["True", "True"]


def test_a_wheel_is_unpacked_and_anything_else_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "pagelake-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pipeline/cli.py", "")
        archive.writestr("pipeline/__init__.py", '__version__ = "9.9"\n')
        archive.writestr("../escape.py", "")
    package = pack_wheel(wheel, tmp_path / "code")
    assert wheel_version(package) == "9.9"
    assert sorted(p.name for p in (tmp_path / "code").iterdir()) == ["pipeline"]
    for name in ("other.whl", "none.whl"):
        with pytest.raises(JobError, match=f"--wheel.*{name}"):
            pack_wheel(tmp_path / name, tmp_path / "again")
        with zipfile.ZipFile(tmp_path / "none.whl", "w") as archive:
            archive.writestr("shop/__init__.py", "")


def test_a_cluster_without_pagelake_says_so_in_one_line(here: Path) -> None:
    (here / "mine.yaml").write_text(
        "{input: {paths: s3://lake/in}, task: ocr, output: {uri: s3://lake/out}}"
    )
    pack_job(load_job("mine.yaml"), here / "parcel")
    # -S: no site-packages, as on a machine that has nothing but Python.
    done = subprocess.run(
        [sys.executable, "-S", "preflight.py", "0.1.0"],
        cwd=here / "parcel",
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "has no pagelake; install it on all machines, or send it along" in done.stderr
