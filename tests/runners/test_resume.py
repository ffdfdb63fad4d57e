"""Going on with a run: what is known is not read again, and what is not known is not missed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from pipeline.errors import ItemError, OutputError
from pipeline.job import Job
from pipeline.lake.layout import RUNS, Layout
from pipeline.lake.ledger import Ledger
from pipeline.records import FailureKind
from pipeline.render.renderer import DocumentInfo, Renderer
from pipeline.runners.claim import _difference
from pipeline.runners.planning import read_plans
from pipeline.runners.progress import RunProgress
from pipeline.runners.summary import Summary
from pipeline.stages import plan as planning

MakeJob = Callable[..., Job]
RunJob = Callable[..., Summary]
Rows = Callable[[Path | str, str], list[dict[str, Any]]]

OCR = {"task": "ocr", "schema": "text.v1", "model": {"family": "fake", "name": "fake?edge=224"}}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that planning has read, as it reads them."""
    names: list[str] = []
    sha256 = planning._sha256

    def noted(found: Path) -> str:
        names.append(found.name)
        return sha256(found)

    monkeypatch.setattr(planning, "_sha256", noted)
    return names


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, FailureKind | None]:
    """The names of the files that the renderer has opened; one given a kind fails with it."""
    names: dict[str, FailureKind | None] = {}
    open_document = Renderer.open

    def noted(self: Renderer, source: Path, *rest: Any) -> DocumentInfo:
        kind = names.setdefault(source.name, None)
        if kind is not None:
            raise ItemError(kind, "not this time")
        return open_document(self, source, *rest)

    monkeypatch.setattr(Renderer, "open", noted)
    return names


@pytest.fixture
def folder(tmp_path: Path, demo: Path) -> Path:
    """A PDF of three pages, b.pdf, between two pictures."""
    made = tmp_path / "in"
    made.mkdir()
    shutil.copy(demo / "documents" / "multipage-02.pdf", made / "b.pdf")
    for shade, name in enumerate(("a.png", "c.png")):
        picture(made / name, shade)
    return made


def picture(path: Path, shade: int) -> None:
    PIL.Image.new("L", (40, 30), shade).save(path)


def scramble(folder: Path) -> None:
    """Change every byte and nothing that a listing tells."""
    for path in folder.iterdir():
        before = path.stat()
        path.write_bytes(random.Random(0).randbytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def plan_papers(job: Job) -> list[str]:
    layout = Layout.open(job.output.uri)
    return [name for name in layout.list(RUNS, deep=True) if name.endswith(".parquet")]


def planned_names(job: Job) -> Iterator[str]:
    layout = Layout.open(job.output.uri)
    manifest = Ledger(layout).manifest()
    assert manifest is not None
    return (Path(plan.document.uri).name for plan in read_plans(layout, manifest.plans[0]))


def interrupt(
    job: Job,
    run_job: RunJob,
    monkeypatch: pytest.MonkeyPatch,
    step: str = "committed",
    **options: bool,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, step, stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, **options)


def test_every_difference_of_settings_is_told_as_a_job_file_has_it() -> None:
    before = {
        "task": "ocr",
        "prompt": "12ab",
        "model.adapter": None,
        "generation.constrained": True,
    }
    after = {
        "task": "ocr",
        "prompt": "34cd",
        "model.adapter": "x@1",
        "generation.constrained": False,
    }
    assert _difference(before, after) == (
        "generation.constrained: true -> false; model.adapter: null -> x@1; prompt: another text"
    )
    assert _difference({}, after) == "made with settings that the output has no note of"


def test_finished_documents_are_not_read_again(
    folder: Path,
    make_job: MakeJob,
    run_job: RunJob,
    rows: Rows,
    opened: dict[str, FailureKind | None],
) -> None:
    job = make_job([folder], **OCR)
    run_job(job)
    before = [rows(job.output.uri, table) for table in ("pages", "documents")]
    scramble(folder)
    opened.clear()
    again = run_job(job)
    assert opened == {}
    assert (again.documents, again.documents_known) == ({"ok": 3}, 3)
    assert (again.done.pages, again.pages_reused) == (0, 5)
    pages, documents = (rows(job.output.uri, table) for table in ("pages", "documents"))
    assert pages == before[0]
    assert [row["record"] for row in documents] == [row["record"] for row in before[1]]


def test_new_and_changed_documents_are_read_and_all_if_fresh(
    folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows, read: list[str]
) -> None:
    job = make_job([folder], **OCR)
    run_job(job)
    read.clear()
    picture(folder / "aa.png", 7)
    picture(folder / "c.png", 8)
    summary = run_job(job)
    assert read == ["aa.png", "c.png"]
    assert (summary.documents, summary.documents_known) == ({"ok": 4}, 2)
    assert list(planned_names(job)) == ["a.png", "aa.png", "b.pdf", "c.png"]
    assert len(rows(job.output.uri, "pages")) == 6
    read.clear()
    assert run_job(job, fresh=True).documents_known == 0
    assert len(read) == 4


def test_pages_are_selected_anew_without_reading(
    folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows, read: list[str]
) -> None:
    run_job(make_job([folder], **OCR, input={"max_pages": 2}))
    read.clear()
    summary = run_job(make_job([folder], **OCR, input={"pages": "-2"}))
    assert (summary.done.pages, summary.pages_reused) == (2, 2)
    summary = run_job(make_job([folder], **OCR, input={"pages": "3"}))
    assert (summary.done.pages, summary.failures) == (1, {"empty": 2})
    summary = run_job(make_job([folder], **OCR, input={"max_pages": 1}))
    assert (summary.done.pages, summary.failures) == (0, {"too_many_pages": 1})
    assert read == []


def test_documents_that_failed_are_planned_again_or_those_asked_for(
    folder: Path,
    make_job: MakeJob,
    run_job: RunJob,
    rows: Rows,
    opened: dict[str, FailureKind | None],
    read: list[str],
) -> None:
    job = make_job([folder], **OCR)
    opened.update({"a.png": FailureKind.RENDER_TIMEOUT, "b.pdf": FailureKind.RENDER_CRASH})
    assert run_job(job).documents == {"ok": 1, "failed": 2}
    opened.clear()
    read.clear()
    summary = run_job(job, retry=frozenset({FailureKind.RENDER_TIMEOUT}))
    assert read == ["a.png"]
    assert (summary.documents, summary.failures) == ({"ok": 2, "failed": 1}, {"render_crash": 1})
    assert run_job(job).documents == {"ok": 3}
    assert read == ["a.png", "b.pdf"]


def test_an_interrupted_run_ends_as_an_undisturbed_one(
    tmp_path: Path,
    folder: Path,
    make_job: MakeJob,
    run_job: RunJob,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    read: list[str],
) -> None:
    for number in range(20):
        picture(folder / f"d{number:02}.png", 3 + number)
    job = make_job([folder], **OCR)
    interrupt(job, run_job, monkeypatch)
    read.clear()
    picture(folder / "c5.png", 22)  # has the bytes of d19.png, which has no row yet
    assert run_job(job).documents_known == 23
    assert read == ["c5.png"]
    undisturbed = make_job([folder], **OCR, output={"uri": str(tmp_path / "other")})
    run_job(undisturbed)
    names = ("document_id", "uri", "n_pages", "page_numbers", "state", "record", "pages_ok")

    def told(job: Job, table: str) -> list[list[Any]]:
        found = [[row.get(name) for name in names] for row in rows(job.output.uri, table)]
        return sorted(found, key=str)

    for table in ("documents", "pages"):
        assert told(job, table) == told(undisturbed, table)
    assert list(planned_names(job)) == list(planned_names(undisturbed))


def test_a_small_run_forgets_nothing_and_plans_do_not_pile_up(
    folder: Path,
    make_job: MakeJob,
    run_job: RunJob,
    monkeypatch: pytest.MonkeyPatch,
    read: list[str],
) -> None:
    job = make_job([folder], **OCR)
    interrupt(job, run_job, monkeypatch)
    for _ in range(2):
        run_job(job, limit=1)
        manifest = Ledger(Layout.open(job.output.uri)).manifest()
        assert manifest is not None
        assert sorted(plan_papers(job)) == sorted(manifest.plans)
    assert run_job(job).documents_known == 3
    assert len(read) == 3
    assert len(plan_papers(job)) == 1


def test_a_fresh_run_that_committed_nothing_is_gone_on_with(
    folder: Path,
    make_job: MakeJob,
    run_job: RunJob,
    read: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_job([folder], **OCR)
    run_job(job)
    interrupt(job, run_job, monkeypatch, step="starting", fresh=True)
    read.clear()
    again = run_job(job, fresh=True)
    assert (again.pages_reused, read) == (0, [])


def test_a_damaged_plan_file_is_named_with_its_mend(
    folder: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    job = make_job([folder], **OCR)
    run_job(job)
    (name,) = Ledger(Layout.open(job.output.uri)).manifest().plans  # type: ignore[union-attr]
    plans = Path(job.output.uri) / name
    whole = plans.read_bytes()
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # of the rows, before the footer
    plans.write_bytes(whole[:4] + bytes(end - 4) + whole[end:])
    with pytest.raises(OutputError, match=r"plans\.parquet is damaged .*; delete it and run again"):
        run_job(job)
    plans.unlink()
    assert run_job(job).all_ok
