"""Jobs of `unit: document`: what is one prompt, what a bad page costs, what is done again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from pdf_builder import build_pages

from pipeline.errors import ItemError
from pipeline.job import Job
from pipeline.models.base import ModelInput, ModelOutput
from pipeline.models.fake import FakeModel
from pipeline.records import Answer, Failed, FailureKind, Page
from pipeline.render.renderer import Renderer
from pipeline.runners.progress import RunProgress
from pipeline.runners.steps import Committer
from pipeline.runners.summary import Summary

MakeJob = Callable[..., Job]
RunJob = Callable[..., Summary]
Rows = Callable[[Path | str, str], list[dict[str, Any]]]

FOUR = {
    "unit": "document",
    "pages_per_sample": 4,
    "task": "ocr",
    "schema": "text.v1",
    "model": {"family": "fake", "name": "fake?edge=56"},
}
FIVE_IN_FOURS = [[1, 2, 3, 4], [5]]
TWENTY_IN_FOURS = [[n, n + 1, n + 2, n + 3] for n in range(1, 20, 4)]


def write_pdf(path: Path, n_pages: int, *, text: bool = True) -> Path:
    """Pages of a square of their own, which print their number, or nothing."""
    path.parent.mkdir(exist_ok=True)
    pages = []
    for number in range(1, n_pages + 1):
        prints = b"BT /F1 12 Tf 20 90 Td (%s page %d) Tj ET" % (path.stem.encode(), number)
        drawing = b"%d %d 30 30 re f " % (2 * number, n_pages) + prints * text
        pages.append((b"/MediaBox [0 0 200 200]", drawing))
    path.write_bytes(build_pages(*pages))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documents of 1, 5 and 20 pages."""
    for n_pages in (1, 5, 20):
        write_pdf(tmp_path / "in" / f"d{n_pages:02}.pdf", n_pages)
    return tmp_path / "in"


@pytest.fixture
def flawed(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, FailureKind]]:
    """Numbers of pages that the renderer fails on, while they are in it."""
    kinds: dict[int, FailureKind] = {}
    draw = Renderer.draw

    def drawn(self: Renderer, number: int) -> Page:
        if number in kinds:
            raise ItemError(kinds[number], "not this time")
        return draw(self, number)

    monkeypatch.setattr(Renderer, "draw", drawn)
    return kinds


def answers(rows: Rows, job: Job) -> dict[tuple[str, tuple[int, ...]], str]:
    return {
        (row["uri"], tuple(row["page_numbers"])): row["raw_text"]
        for row in rows(job.output.uri, "pages")
    }


def pages_of(rows: Rows, job: Job) -> list[tuple[str, list[int], str]]:
    found = [
        (Path(row["uri"]).stem, row["page_numbers"], row["state"])
        for row in rows(job.output.uri, "pages")
    ]
    return sorted(found)


def test_documents_are_answered_some_pages_at_a_time(
    folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    job = make_job([folder], **FOUR)
    summary = run_job(job)
    assert summary.documents == {"ok": 3}
    assert summary.pages == {"ok": 26, "truncated": 0, "failed": 0}
    assert (summary.done.pages, summary.done.documents) == (26, 3)
    assert summary.done.states == {"ok": 26}
    assert pages_of(rows, job) == [
        ("d01", [1], "ok"),
        *(("d05", pages, "ok") for pages in FIVE_IN_FOURS),
        *(("d20", pages, "ok") for pages in TWENTY_IN_FOURS),
    ]
    texts = answers(rows, job)
    assert len(set(texts.values())) == len(texts) == 8
    for row in rows(job.output.uri, "documents"):
        said = [text for (uri, _), text in sorted(texts.items()) if uri == row["uri"]]
        assert row["pages_ok"] == row["n_pages"]
        assert row["record"]["text"] == "\f".join(said)


def test_both_runners_make_the_same_samples(
    tmp_path: Path, folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows, ray_session: None
) -> None:
    told = []
    for runner in ("local", "ray"):
        job = make_job([folder], **FOUR, output={"uri": str(tmp_path / runner)})
        assert run_job(job, runner=runner).done.documents == 3
        told.append((answers(rows, job), pages_of(rows, job)))
    assert told[0] == told[1]


def test_a_bad_page_costs_its_own_row_only(
    tmp_path: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    bad = write_pdf(tmp_path / "in" / "bad.pdf", 7)
    whole = bad.read_bytes()
    bad.write_bytes(whole.replace(b"[4 0 R 6 0 R 8 0 R", b"[4 0 R 0 0 R 8 0 R"))  # no such object
    job = make_job([bad], **FOUR)
    summary = run_job(job)
    assert summary.documents == {"partial": 1}
    assert summary.pages == {"ok": 6, "truncated": 0, "failed": 1}
    assert summary.done.kinds == {"unreadable": 1}
    assert pages_of(rows, job) == [
        ("bad", [1, 3, 4], "ok"),
        ("bad", [2], "failed"),
        ("bad", [5, 6, 7], "ok"),
    ]


def test_pages_done_again_are_asked_about_with_their_neighbours(
    folder: Path,
    make_job: MakeJob,
    run_job: RunJob,
    rows: Rows,
    flawed: dict[int, FailureKind],
) -> None:
    job = make_job([folder / "d05.pdf"], **FOUR)
    flawed |= dict.fromkeys((1, 2, 3, 5), FailureKind.RENDER_TIMEOUT)
    assert run_job(job).documents == {"partial": 1}
    flawed.clear()
    flawed[2] = FailureKind.RENDER_CRASH
    again = run_job(job, retry=frozenset({FailureKind.RENDER_TIMEOUT}))
    assert (again.done.pages, again.pages_reused) == (4, 1)
    partly = [("d05", [1, 3], "ok"), ("d05", [2], "failed"), ("d05", [4], "ok")]
    assert pages_of(rows, job) == [*partly, ("d05", [5], "ok")]
    flawed.clear()
    assert run_job(job).documents == {"ok": 1}
    assert pages_of(rows, job) == [(name, pages, "ok") for name, pages, _ in partly] + [
        ("d05", [5], "ok")
    ]


def test_a_sample_that_failed_whole_may_come_back_in_parts(
    tmp_path: Path,
    make_job: MakeJob,
    run_job: RunJob,
    rows: Rows,
    flawed: dict[int, FailureKind],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_job([write_pdf(tmp_path / "in" / "a.pdf", 3)], **FOUR)

    def fail(self: FakeModel, *_: object) -> None:
        raise ValueError("not this time")

    with monkeypatch.context() as patch:
        patch.setattr(FakeModel, "generate", fail)
        assert run_job(job).done.kinds == {"model_error": 3}
    assert pages_of(rows, job) == [("a", [1, 2, 3], "failed")]
    flawed[2] = FailureKind.RENDER_CRASH
    assert run_job(job).documents == {"partial": 1}
    assert pages_of(rows, job) == [("a", [1, 3], "ok"), ("a", [2], "failed")]


@pytest.mark.parametrize("retry", [None, frozenset({FailureKind.RENDER_CRASH})])
def test_a_sample_done_again_in_part_when_a_run_was_killed_is_done_again_in_full(
    tmp_path: Path,
    make_job: MakeJob,
    run_job: RunJob,
    rows: Rows,
    flawed: dict[int, FailureKind],
    monkeypatch: pytest.MonkeyPatch,
    retry: frozenset[FailureKind] | None,
) -> None:
    job = make_job([write_pdf(tmp_path / "in" / "a.pdf", 3)], **FOUR)
    commit = Committer.commit

    def fail(self: FakeModel, *_: object) -> None:
        raise MemoryError("not this time")

    def some(self: Committer, answers: Sequence[Answer | Failed]) -> None:
        commit(self, answers[:1])  # the page that failed comes first
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FakeModel, "generate", fail)
        assert run_job(job).done.kinds == {"out_of_memory": 3}
    flawed[2] = FailureKind.RENDER_CRASH
    with monkeypatch.context() as patch:
        patch.setattr(Committer, "commit", some)
        with pytest.raises(KeyboardInterrupt):
            run_job(job)
    flawed.clear()
    assert run_job(job, retry=retry).pages == {"ok": 3, "truncated": 0, "failed": 0}
    assert pages_of(rows, job) == [("a", [1, 2, 3], "ok")]


def test_an_interrupted_run_does_unfinished_samples_only(
    folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job([folder], **FOUR)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "committed", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job)
    summary = run_job(job)
    assert (summary.done.pages, summary.pages_reused) == (12, 14)  # 1 + 5 + 2 samples of 4
    assert summary.documents == {"ok": 3}
    assert [pages for name, pages, _ in pages_of(rows, job) if name == "d20"] == TWENTY_IN_FOURS


def test_a_question_is_asked_of_some_pages_at_a_time(
    folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    asking = {**FOUR, "task": "ask", "schema": "answer.v1"}
    job = make_job([folder / "d05.pdf"], **asking, question="What is printed here?")
    summary = run_job(job)
    assert sum(summary.pages.values()) == 5
    for row in rows(job.output.uri, "pages"):
        assert row["schema_id"] == "answer.v1"
        assert row["page_numbers"] in FIVE_IN_FOURS
        assert row["state"] != "ok" or set(row["record"]) == {"answer"}


def test_a_prompt_of_text_alone_shows_no_tiles_and_fails_what_has_none(
    folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pdf(folder / "scan.pdf", 2, text=False)
    seen: list[ModelInput] = []
    generate = FakeModel.generate

    def noted(self: FakeModel, inputs: Sequence[ModelInput], most: int) -> list[ModelOutput]:
        seen.extend(inputs)
        return generate(self, inputs, most)

    monkeypatch.setattr(FakeModel, "generate", noted)
    job = make_job([folder / "d05.pdf", folder / "scan.pdf"], **FOUR, prompt="Read this: {text}")
    summary = run_job(job)
    assert summary.documents == {"ok": 1, "failed": 1}
    assert summary.failures == {"unsupported": 1}
    assert [(item.prompt, len(item.tiles)) for item in seen] == [
        ("Read this: " + "\n".join(f"d05 page {n}" for n in pages), 0) for pages in FIVE_IN_FOURS
    ]
    (failed,) = [row for row in rows(job.output.uri, "pages") if row["state"] == "failed"]
    assert failed["page_numbers"] == [1, 2]
    assert failed["failure_stage"] == "encode"
    assert "pages 1-2 have none; add {page} to it" in failed["failure_message"]


def test_samples_that_are_too_long_for_the_model_fail_alone(
    folder: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    small = {"family": "fake", "name": "fake?edge=56&context=50"}
    job = make_job([folder / "d05.pdf"], **{**FOUR, "model": small}, prompt="Read. {page}{text}")
    summary = run_job(job)
    assert summary.done.kinds == {"model_error": 4}
    assert pages_of(rows, job) == [("d05", [1, 2, 3, 4], "failed"), ("d05", [5], "ok")]
    (failed,) = [row for row in rows(job.output.uri, "pages") if row["state"] == "failed"]
    assert "do not fit the model's context of 50; lower pages_per" in failed["failure_message"]
