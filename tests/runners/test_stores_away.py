"""A store that goes away, or no longer knows the keys, while documents are read from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from recording_s3 import Numbered, RecordingS3, recording_s3

from pipeline.errors import InputError, RunError
from pipeline.job import Job
from pipeline.runners.summary import Summary

Make = Callable[..., Job]
RunJob = Callable[..., Summary]

FAKE = {
    "task": "ocr",
    "schema": "text.v1",
    "model": {"family": "fake", "name": "fake?edge=224"},
}


@pytest.fixture
def s3() -> Iterator[RecordingS3]:
    """Three objects, which are no documents: rows of kind `unreadable`."""
    with recording_s3(Numbered(3)) as server:
        yield server


@pytest.fixture
def stores(s3: RecordingS3) -> dict[str, Any]:
    return {"s3://": {"endpoint": s3.endpoint, "anonymous": True, "attempts": 1}}


def kinds(tmp_path: Path) -> list[str]:
    found = ds.dataset(tmp_path / "out/documents").to_table(columns=["failure_kind"])
    return found.column("failure_kind").to_pylist()


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_documents_that_nobody_could_ask_for_are_read_when_the_store_is_back(
    make_job: Make,
    run_job: RunJob,
    s3: RecordingS3,
    stores: dict[str, Any],
    tmp_path: Path,
    runner: str,
    request: pytest.FixtureRequest,
) -> None:
    if runner == "ray":
        request.getfixturevalue("ray_session")
    job = make_job(["s3://b/scans"], **FAKE, stores=stores)
    s3.fault = lambda _: 503 if any("/scans/" in one.path for one in s3.requests) else None
    with pytest.raises(RunError, match=r"^reading the input broke off: s3://b/.* answers 503"):
        run_job(job, runner=runner, incremental=True)
    s3.fault = lambda _: None
    run_job(job, runner=runner, incremental=True)
    assert kinds(tmp_path) == ["unreadable"] * 3


@pytest.mark.parametrize(
    ("status", "code", "kind"), [(503, "SlowDown", RunError), (403, "ExpiredToken", InputError)]
)
def test_rows_stay_when_a_trusted_manifest_s_store_gives_nothing(
    make_job: Make,
    run_job: RunJob,
    s3: RecordingS3,
    stores: dict[str, Any],
    tmp_path: Path,
    status: int,
    code: str,
    kind: type[Exception],
) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri\n" + "".join(f"s3://b/{key}\n" for key in Numbered(3)))
    source = {"manifest": str(manifest), "trust_manifest": True}
    job = make_job([], **FAKE, stores=stores, input=source)
    run_job(job)
    s3.fault, s3.code = lambda _: status, code
    with pytest.raises(kind, match=r"^reading the input broke off"):
        run_job(job)
    assert kinds(tmp_path) == ["unreadable"] * 3
