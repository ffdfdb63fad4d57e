"""Whole runs whose documents and tables lie in an object store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import yaml
from s3_server import S3Server
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.errors import OutputError
from pipeline.evaluation.evaluate import evaluate
from pipeline.job import Job
from pipeline.lake.clean import clean
from pipeline.lake.layout import Layout
from pipeline.lake.object_store import ObjectStore
from pipeline.runners.progress import RunProgress
from pipeline.runners.summary import Summary

Make = Callable[..., Job]
RunJob = Callable[..., Summary]

FAKE = {
    "task": "ocr",
    "schema": "text.v1",
    "model": {"family": "fake", "name": "fake?edge=224"},
}
SAME = ["document_id", "n_pages", "state", "record_json", "fingerprint", "failure_kind"]


@pytest.fixture
def pile(tmp_path: Path, demo: Path, s3: S3Server) -> Path:
    """A folder of 18 pages, two commits, on the disk and as s3://pile/in."""
    folder = tmp_path / "in"
    folder.mkdir()
    picture = (demo / "documents" / "image-01.png").read_bytes()
    s3.make_bucket("pile")
    for number in range(18):
        data = picture + bytes([number])
        (folder / f"{number:02}.png").write_bytes(data)
        with s3.filesystem.open_output_stream(f"pile/in/{number:02}.png") as stream:
            stream.write(data)
    return folder


@pytest.fixture
def job(make_job: Make, s3: S3Server, pile: Path) -> Callable[[str], Job]:
    def make(output: str) -> Job:
        s3.make_bucket(output)
        settings = {"output": {"uri": f"s3://{output}/here"}, "stores": s3.stores}
        return make_job(["s3://pile/in"], **FAKE, **settings)

    return make


def table(folder: Any, columns: list[str], **options: Any) -> list[dict[str, Any]]:
    found = ds.dataset(folder, format="parquet", **options).to_table(columns=columns)
    rows: list[dict[str, Any]] = found.to_pylist()
    return sorted(rows, key=str)


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_a_run_on_s3_gives_the_rows_of_a_local_one(
    job: Callable[[str], Job],
    make_job: Make,
    run_job: RunJob,
    s3: S3Server,
    pile: Path,
    tmp_path: Path,
    runner: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if runner == "ray":
        request.getfixturevalue("ray_session")
    read_here = []
    read = ObjectStore.read
    monkeypatch.setattr(
        ObjectStore, "read", lambda self, path: (read_here.append(path), read(self, path))[1]
    )
    assert run_job(job(f"rows-{runner}"), runner=runner).all_ok
    documents = [path for path in read_here if path.startswith("pile/")]
    assert bool(documents) == (runner == "local")  # Ray's driver reads none
    run_job(make_job([pile], **FAKE))
    for name in ("documents", "pages"):
        far = table(f"rows-{runner}/here/{name}", SAME, filesystem=s3.filesystem)
        assert far == table(tmp_path / "out" / name, SAME)


def test_a_run_that_broke_off_goes_on_and_is_cleaned_and_scored(
    job: Callable[[str], Job],
    run_job: RunJob,
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = job("broken-off")
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(RunProgress, "committed", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(chosen)
    summary = run_job(chosen)
    assert summary.all_ok
    assert summary.pages_reused == 16
    with s3.filesystem.open_output_stream("broken-off/here/pages/orphan.parquet") as stream:
        stream.write(b"left by a run that died")
    # Where s3:// is the job's file says, or, beside a URI, the environment alone.
    file, truth = tmp_path / "job.yaml", tmp_path / "truth.jsonl"
    file.write_text(yaml.safe_dump(chosen.model_dump(mode="json", by_alias=True)))
    told = CliRunner().invoke(app, ["clean", str(file), "--dry-run", "--json"])
    assert list(json.loads(told.stdout)["kinds"]) == ["pages"]
    truth.write_text(json.dumps({"uri": "s3://pile/in/00.png", "record": {"text": "x"}}))
    told = CliRunner().invoke(app, ["eval", str(file), "--truth", str(truth), "--json"])
    assert json.loads(told.stdout)["documents"] == 1
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert set(clean("s3://broken-off/here").files) == {"pages"}
    assert "orphan" not in str(Layout.open("s3://broken-off/here").list("pages"))
    assert evaluate("s3://broken-off/here", str(truth)).to_json()


def test_a_document_that_a_store_does_not_give_is_a_row(
    job: Callable[[str], Job], run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = ObjectStore.read

    def fail(self: ObjectStore, path: str) -> bytes:
        if path == "pile/in/07.png":
            raise PermissionError("s3://pile/in/07.png: access denied (403)")
        return read(self, path)

    monkeypatch.setattr(ObjectStore, "read", fail)
    summary = run_job(job("one-denied"))
    assert summary.documents == {"ok": 17, "failed": 1}


def test_an_output_that_is_not_there_is_the_users_mistake(
    make_job: Make,
    run_job: RunJob,
    s3: S3Server,
    pile: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"output": {"uri": "s3://nowhere/here"}, "stores": s3.stores}
    with pytest.raises(OutputError, match=r"s3://nowhere: no such bucket"):
        run_job(make_job(["s3://pile/in/00.png"], **FAKE, **settings))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    with pytest.raises(OutputError, match=r"no such bucket|no run has written here"):
        clean("s3://nowhere/here")


def test_half_an_object_is_never_seen(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    s3.make_bucket("halves")
    layout = Layout.open("s3://halves/here")
    layout.write_bytes("pages/x", b"committed")

    def write_half() -> None:
        with layout.write("pages/x") as stream:
            stream.write(bytes(12 << 20))  # more than one part of an upload
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert layout.read_bytes("pages/x") == b"committed"
    with layout.write("pages/x") as stream:
        stream.write(bytes(12 << 20))
    assert layout.size("pages/x") == 12 << 20
