"""Ingesting again and again: what is new is taken in, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from s3_server import S3Server

from pipeline.errors import InputError, ItemError, OutputError
from pipeline.job import Job
from pipeline.lake.layout import COMMITS, Layout
from pipeline.lake.ledger import Ledger, Manifest
from pipeline.records import FailureKind
from pipeline.render.renderer import DocumentInfo, Renderer
from pipeline.runners.progress import RunProgress
from pipeline.runners.summary import Summary

MakeJob = Callable[..., Job]
RunJob = Callable[..., Summary]
Rows = Callable[[Path | str, str], list[dict[str, Any]]]

OCR = {"task": "ocr", "schema": "text.v1", "model": {"family": "fake", "name": "fake?edge=224"}}


@pytest.fixture
def job(inbox: Path, make_job: MakeJob) -> Job:
    return make_job([inbox], **OCR)


@pytest.fixture
def ingest(run_job: RunJob) -> RunJob:
    def go(job: Job, **options: Any) -> Summary:
        return run_job(job, incremental=True, **options)

    return go


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the documents that have been opened."""
    names: list[str] = []
    open_document = Renderer.open

    def noted(self: Renderer, source: Path, *rest: Any) -> DocumentInfo:
        names.append(Path(source).name)
        if "bad" in Path(source).name:
            raise ItemError(FailureKind.RENDER_TIMEOUT, "not this time")
        return open_document(self, source, *rest)

    monkeypatch.setattr(Renderer, "open", noted)
    return names


def arrive(inbox: Path, *names: str, shade: int = 0) -> None:
    for number, name in enumerate(names):
        PIL.Image.new("L", (40, 30), shade + number).save(inbox / f"{name}.png")


def manifest_of(job: Job) -> Manifest:
    manifest = Ledger(Layout.open(job.output.uri)).manifest()
    assert manifest is not None
    return manifest


def by_name(rows: Rows, job: Job) -> dict[str, dict[str, Any]]:
    found = rows(job.output.uri, "documents")
    named = {Path(row["uri"]).stem: row for row in found}
    assert len(named) == len(found)
    return named


def everything(job: Job) -> dict[str, int]:
    """Every file and folder of the output, with the time of its last change."""
    root = Path(job.output.uri)
    return {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} | {
        str(path): 0 for path in root.rglob("*") if path.is_dir()
    }


def test_only_what_is_new_or_changed_is_taken_in(
    inbox: Path, job: Job, ingest: RunJob, rows: Rows, opened: list[str]
) -> None:
    arrive(inbox, "a", "b", "c")
    assert ingest(job).listed["new"] == 3
    before = by_name(rows, job)
    opened.clear()
    arrive(inbox, "d", "b", shade=50)
    (inbox / "copy.png").write_bytes((inbox / "a.png").read_bytes())
    (inbox / "c.png").unlink()
    summary = ingest(job)
    assert sorted(set(opened)) == ["b.png", "copy.png", "d.png"]
    assert summary.listed == {"new": 2, "changed": 1, "retried": 0, "unchanged": 1, "waiting": 0}
    assert (summary.documents, summary.documents_carried) == ({"ok": 3}, 2)
    # The same content under another name is not read by the model again.
    assert (summary.done.pages, summary.pages_reused) == (2, 1)
    after = by_name(rows, job)
    assert set(after) == {"a", "b", "c", "d", "copy"}
    assert (after["a"], after["c"]) == (before["a"], before["c"])
    assert after["b"]["document_id"] != before["b"]["document_id"]
    assert len(rows(job.output.uri, "pages")) == 4


def test_an_ingest_of_nothing_leaves_no_trace(
    inbox: Path, job: Job, ingest: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ingest(job)
    assert (first.run_id, first.listed["unchanged"], first.all_ok) == (None, 0, True)
    arrive(inbox, "a")
    assert ingest(job).run_id is not None
    before = everything(job)
    monkeypatch.setattr("pipeline.runners.run._runner", None)  # none is asked for
    again = ingest(job)
    assert (again.run_id, again.listed["unchanged"], again.documents) == (None, 1, {})
    changed = {name for name, time in everything(job).items() if before.get(name) != time}
    assert changed <= {f"{job.output.uri}/_pagelake/.guard"}
    assert set(before) == set(everything(job))
    # What a run wrote that was killed before it published: a plain glob shows rows twice.
    (published,) = (Path(job.output.uri) / "documents").glob("*.parquet")
    (published.parent / "killed.parquet").write_bytes(published.read_bytes())
    assert ingest(job).run_id is None
    assert set(before) == set(everything(job))


def test_what_a_killed_ingest_did_is_used_and_the_rest_done(
    inbox: Path,
    job: Job,
    ingest: RunJob,
    rows: Rows,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    arrive(inbox, "a")
    ingest(job)
    arrive(inbox, *(f"n{number:02}" for number in range(20)), shade=100)
    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "committed", stop)  # after the first 16 pages
        with pytest.raises(KeyboardInterrupt):
            ingest(job)
    assert len(by_name(rows, job)) == 1
    opened.clear()
    some = ingest(job, limit=5)
    assert (some.documents_known, some.done.pages, some.pages_reused) == (5, 0, 5)
    assert some.listed == {"new": 5, "changed": 0, "retried": 0, "unchanged": 1, "waiting": 15}
    rest = ingest(job)
    assert (rest.documents_known, rest.done.pages, rest.pages_reused) == (15, 4, 11)
    assert not {name for name in opened if name < "n16"}
    assert len(by_name(rows, job)) == 21
    assert ingest(job).run_id is None


def test_failed_documents_are_tried_again_if_asked_for_or_changed(
    inbox: Path, job: Job, ingest: RunJob, opened: list[str], rows: Rows
) -> None:
    arrive(inbox, "a", "bad1", "bad2")
    first = ingest(job)
    assert (first.documents, first.all_ok) == ({"ok": 1, "failed": 2}, False)
    opened.clear()
    assert ingest(job).run_id is None
    assert ingest(job, retry=frozenset({FailureKind.ENCRYPTED})).run_id is None
    assert opened == []
    arrive(inbox, "bad2", shade=9)
    assert ingest(job).listed["changed"] == 1
    again = ingest(job, retry=frozenset({FailureKind.RENDER_TIMEOUT}))
    assert (again.listed["retried"], again.listed["unchanged"]) == (2, 1)
    assert len(by_name(rows, job)) == 3


def test_documents_with_failed_pages_are_retried_if_asked_for(
    inbox: Path, make_job: MakeJob, ingest: RunJob, rows: Rows
) -> None:
    arrive(inbox, "a")
    PIL.Image.new("RGB", (40, 30), "red").save(inbox / "red.png")
    fails = {**OCR, "model": {"family": "fake", "name": "fake?edge=224&fails_on=ff0000"}}
    job = make_job([inbox], **fails)
    assert ingest(job).failures == {"model_error": 1}
    assert ingest(job).run_id is None
    assert ingest(job, retry=frozenset({FailureKind.MODEL_CRASH})).run_id is None
    again = ingest(job, retry=frozenset({FailureKind.MODEL_ERROR}))
    assert (again.listed["retried"], again.done.pages, again.failures) == (1, 1, {"model_error": 1})
    assert len(by_name(rows, job)) == len(rows(job.output.uri, "pages")) == 2


def test_ingests_one_by_one_make_the_tables_of_one_run(
    inbox: Path, job: Job, make_job: MakeJob, ingest: RunJob, run_job: RunJob, rows: Rows
) -> None:
    for number in range(3):
        arrive(inbox, f"n{number}", shade=number)
        assert ingest(job).listed["new"] == 1
    layout = Layout.open(job.output.uri)
    assert [len(layout.list(folder)) for folder in ("documents", "pages", COMMITS)] == [1, 1, 0]
    assert len(manifest_of(job).plans) == 2
    whole = make_job([inbox], **OCR, output={"uri": f"{job.output.uri}-whole"})
    run_job(whole)
    for table in ("documents", "pages"):
        ours, theirs = (
            sorted((row["uri"], row["document_id"], row["state"], row["record_json"]) for row in r)
            for r in (rows(job.output.uri, table), rows(whole.output.uri, table))
        )
        assert ours == theirs
    assert manifest_of(job).counts == manifest_of(whole).counts


def test_a_run_after_ingests_lists_all_and_an_ingest_after_a_run_none(
    inbox: Path, job: Job, ingest: RunJob, run_job: RunJob
) -> None:
    arrive(inbox, "a", "b")
    ingest(job, limit=1)
    summary = run_job(job)
    assert (summary.documents, summary.documents_known, summary.pages_reused) == ({"ok": 2}, 1, 1)
    assert ingest(job).run_id is None


def test_an_ingest_does_not_take_a_limited_run_for_a_whole_one(
    inbox: Path, job: Job, ingest: RunJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed run planned is carried by a later one that does not list it: it is no row."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    arrive(inbox, "a", "b", "c")
    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "starting", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job)
    run_job(job, limit=1)
    summary = ingest(job)
    assert (summary.listed["new"], summary.documents_known) == (2, 2)


def test_rows_of_files_that_a_manifest_names_and_that_are_gone_stay(
    inbox: Path, make_job: MakeJob, ingest: RunJob, rows: Rows
) -> None:
    arrive(inbox, "a", "b")
    table = inbox / "list.csv"
    table.write_text("uri,customer\na.png,ACME\nb.png,Globex\nlost.png,ACME\n")
    job = make_job([], **OCR, input={"manifest": str(table)})
    assert ingest(job).documents == {"ok": 2, "failed": 1}
    (inbox / "a.png").unlink()
    assert ingest(job).run_id is None
    arrive(inbox, "lost")
    assert ingest(job).listed["changed"] == 1
    assert {row["state"] for row in by_name(rows, job).values()} == {"ok"}


def test_other_settings_are_refused_and_so_is_half_a_fresh_run(
    inbox: Path, job: Job, make_job: MakeJob, ingest: RunJob, run_job: RunJob, monkeypatch: Any
) -> None:
    arrive(inbox, "a")
    ingest(job)
    other = make_job([inbox], **{**OCR, "generation": {"max_new_tokens": 99}})
    with pytest.raises(OutputError, match="rows of another job"):
        ingest(other)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "committed", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, fresh=True)
    with pytest.raises(OutputError, match="--fresh has not finished"):
        ingest(job)


def test_a_place_without_documents_yet_is_fine_and_one_that_is_not_there_is_not(
    inbox: Path, make_job: MakeJob, ingest: RunJob
) -> None:
    assert ingest(make_job([inbox / "*.png"], **OCR)).run_id is None
    for wrong in (inbox / "no" / "*.png", inbox / "no"):
        with pytest.raises(InputError, match=r"mend input\.paths"):
            ingest(make_job([wrong], **OCR))


def test_what_a_trusted_manifest_tells_nothing_of_is_looked_at_again(
    tmp_path: Path, make_job: MakeJob, ingest: RunJob, s3: S3Server
) -> None:
    def put(name: str, shade: int) -> None:
        arrive(tmp_path, name, shade=shade)
        with s3.filesystem.open_output_stream(f"inbox/{name}.png") as stream:
            stream.write((tmp_path / f"{name}.png").read_bytes())

    s3.make_bucket("inbox")
    put("a", 0)
    put("b", 9)
    (tmp_path / "m.csv").write_text("uri\ns3://inbox/a.png\ns3://inbox/b.png\n")
    manifest = {"manifest": str(tmp_path / "m.csv"), "trust_manifest": True}
    job = make_job([], **OCR, input=manifest, stores=s3.stores)
    assert ingest(job).listed["new"] == 2
    put("b", 99)
    assert ingest(job).listed == {
        "new": 0,
        "changed": 1,
        "retried": 0,
        "unchanged": 1,
        "waiting": 0,
    }
