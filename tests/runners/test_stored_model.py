"""A model that lies in a store is fetched once a machine, whoever asks."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from s3_server import S3Server

from pipeline.errors import CheckpointError, RunError
from pipeline.job import Job
from pipeline.models.base import Checkpoint
from pipeline.models.families import BUNDLED
from pipeline.runners import stored_model
from pipeline.runners.stored_model import on_this_machine, resolve_stored
from pipeline.runners.summary import Summary

Rows = list[dict[str, Any]]


@pytest.fixture
def uri(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The bundled model in a bucket, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bucket = f"models-{tmp_path.name.replace('_', '-').lower()}"[:60].strip("-")
    s3.make_bucket(bucket)
    for file in (BUNDLED / "nano").iterdir():
        if file.is_file():
            with s3.filesystem.open_output_stream(f"{bucket}/nano/{file.name}") as stream:
                stream.write(file.read_bytes())
    return f"s3://{bucket}/nano"


@pytest.fixture
def job(uri: str, s3: S3Server, make_job: Callable[..., Job]) -> Job:
    """One whose model is that in the store."""
    return make_job(["x"], model={"name": uri}, stores=s3.stores)


@pytest.fixture
def overwrite(uri: str, s3: S3Server) -> Callable[[str], None]:
    """Replace a file of the model by another of its size."""

    def go(name: str) -> None:
        path = f"{uri.removeprefix('s3://')}/{name}"
        size = s3.filesystem.get_file_info(path).size
        with s3.filesystem.open_output_stream(path) as stream:
            stream.write(b"{}".ljust(size))

    return go


def test_a_run_answers_with_a_model_from_a_store(
    uri: str,
    s3: S3Server,
    demo: Path,
    make_job: Callable[..., Job],
    run_job: Callable[..., Summary],
    rows: Callable[[Path | str, str], Rows],
) -> None:
    job = make_job([demo / "documents" / "image-01.png"], model={"name": uri}, stores=s3.stores)
    assert run_job(job).documents == {"ok": 1}
    (row,) = rows(job.output.uri, "documents")
    assert row["model_id"] == uri
    assert row["record"]["total"] is not None


def test_processes_of_a_machine_fetch_a_model_once(uri: str, job: Job, tmp_path: Path) -> None:
    checkpoint = resolve_stored(job)
    assert checkpoint.location == uri
    (folder,) = (f for f in (tmp_path / "cache" / "pagelake" / "models").iterdir() if f.is_dir())
    assert not list(folder.glob("*.safetensors"))  # the driver has no use for weights
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        fetches = pool.starmap(_fetches, [(checkpoint, job)] * 2)
    assert sorted(fetches) == [0, 1]
    weights = (folder / "model.safetensors").read_bytes()
    assert weights == (BUNDLED / "nano" / "model.safetensors").read_bytes()


def test_a_model_that_was_changed_in_the_store_is_refused(
    uri: str, job: Job, s3: S3Server, make_job: Callable[..., Job]
) -> None:
    checkpoint = resolve_stored(job)
    with s3.filesystem.open_output_stream(f"{uri.removeprefix('s3://')}/config.json") as stream:
        stream.write(b"{}")
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        on_this_machine(checkpoint, job, weights=True)
    nothing = make_job(["x"], model={"name": f"{uri}-not"}, stores=s3.stores)
    with pytest.raises(CheckpointError, match=r"there is no config\.json in"):
        resolve_stored(nothing)


def test_a_model_whose_store_is_away_fails_the_run(make_job: Callable[..., Job]) -> None:
    away = {"endpoint": "http://127.0.0.1:9", "anonymous": True, "attempts": 1}
    job = make_job(["x"], model={"name": "s3://models/nano"}, stores={"s3://": away})
    with pytest.raises(
        RunError, match=r"cannot be fetched: .* does not answer .*; run again later"
    ):
        resolve_stored(job)


def test_a_file_that_is_replaced_while_it_is_fetched_is_not_kept(
    job: Job, overwrite: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = resolve_stored(job)
    copy = stored_model.shutil.copyfileobj

    def upload_meanwhile(source: Any, target: Any, length: int) -> None:
        target.write(source.read(length))
        overwrite("model.safetensors")
        copy(source, target, length)

    monkeypatch.setattr(stored_model.shutil, "copyfileobj", upload_meanwhile)
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        on_this_machine(checkpoint, job, weights=True)
    assert not list((tmp_path / "cache").rglob("model.safetensors*"))


def test_a_file_that_was_replaced_before_it_was_fetched_is_not_kept(
    job: Job, overwrite: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = stored_model._fetch

    def fetch_late(store: Any, path: str, *rest: Any) -> None:
        if path.endswith("/config.json"):
            time.sleep(1.1)  # stores tell times by the second
            overwrite("config.json")
        fetch(store, path, *rest)

    monkeypatch.setattr(stored_model, "_fetch", fetch_late)
    with pytest.raises(CheckpointError, match="has changed since the run began"):
        resolve_stored(job)
    assert not list((tmp_path / "cache").rglob("config.json*"))


def _fetches(checkpoint: Checkpoint, job: Job) -> int:
    """Return how often weights were fetched by this process."""
    fetched: list[str] = []
    fetch = stored_model._fetch

    def counted(store: Any, path: str, *rest: Any) -> None:
        fetched.extend([path] if path.endswith(".safetensors") else [])
        fetch(store, path, *rest)

    stored_model._fetch = counted
    on_this_machine(checkpoint, job, weights=True)
    return len(fetched)
