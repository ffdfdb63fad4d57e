"""An ingest of nothing new leaves a table alone that has its run's rows, committed or not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from deltalake import DeltaTable

from pipeline.job import Job
from pipeline.lake.clean import clean
from pipeline.runners.summary import Summary

RunJob = Callable[..., Summary]
MakeJob = Callable[..., Job]
Named = Callable[..., Job]
NOTE = "_pagelake/published"


@pytest.fixture
def named(demo: Path, inbox: Path, tmp_path: Path, make_job: MakeJob) -> Named:
    """Make a job over two documents by its name, with rows of its own, into a Delta table."""
    for path in sorted((demo / "documents").glob("image-0*"))[:2]:
        shutil.copy(path, inbox)

    def make(name: str, table: str = "table", format: str = "delta") -> Job:
        edge = {"ours": 56, "theirs": 112}[name]
        output = {"uri": str(tmp_path / name), "format": format}
        if format == "delta":
            output["table"] = str(tmp_path / table)
        fake = {"family": "fake", "name": f"fake?edge={edge}"}
        return make_job([inbox], model=fake, task="ocr", schema="text.v1", output=output)

    return make


def nothing_new(run_job: RunJob, job: Job) -> int | None:
    """Ingest, and return how many rows the table lacked; None if it was left alone."""
    summary = run_job(job, incremental=True)
    assert summary.run_id is None
    done = summary.table
    return None if done is None else done.inserted + done.replaced


def test_a_run_that_changed_nothing_has_brought_its_rows_too(
    named: Named, run_job: RunJob, tmp_path: Path
) -> None:
    ours, theirs = named("ours"), named("theirs")
    run_job(ours)
    assert not run_job(ours).table.committed  # type: ignore[union-attr]
    assert run_job(theirs).table.replaced == 2  # type: ignore[union-attr]
    assert [nothing_new(run_job, job) for job in (ours, theirs)] == [None, None]
    run_job(theirs)
    DeltaTable(str(tmp_path / "table")).delete()
    assert nothing_new(run_job, theirs) is None
    clean(theirs.output.uri)
    assert nothing_new(run_job, theirs) is None
    assert DeltaTable(str(tmp_path / "table")).count() == 0
    assert run_job(theirs).table.rows == 2  # type: ignore[union-attr]


def test_an_iceberg_table_is_not_compared_again(
    named: Named, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = named("ours", format="iceberg")
    for _ in range(2):
        run_job(job)
    monkeypatch.setattr("pipeline.lake.publish.upsert", lambda *_: pytest.fail("they compare"))
    assert nothing_new(run_job, job) is None


def test_another_table_or_one_made_anew_gets_the_rows(
    named: Named, run_job: RunJob, tmp_path: Path
) -> None:
    run_job(named("ours"))
    run_job(named("ours"))
    other = named("ours", table="other")
    assert [nothing_new(run_job, other) for _ in range(2)] == [2, None]
    assert nothing_new(run_job, named("ours")) is None
    assert nothing_new(run_job, named("ours", format="iceberg")) == 2
    shutil.rmtree(tmp_path / "table")
    assert nothing_new(run_job, named("ours")) == 2
    shutil.rmtree(tmp_path / "table")
    run_job(named("theirs"))
    assert nothing_new(run_job, named("ours")) == 2


@pytest.mark.parametrize("left", [None, b"", b"[]", b'{"run_id": 1}', b'{"tables": 1}'])
def test_a_run_killed_before_it_noted_so_is_found_among_the_snapshots(
    left: bytes | None, named: Named, run_job: RunJob, tmp_path: Path
) -> None:
    run_job(named("ours"))
    note = tmp_path / "ours" / NOTE
    noted = note.read_bytes()
    note.unlink()
    if left is not None:
        note.write_bytes(left)
    run_job(named("theirs"))
    assert nothing_new(run_job, named("ours")) is None
    assert note.read_bytes() == noted
