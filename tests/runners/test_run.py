"""Whole runs over real files: what comes out, what is not done twice, and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import PIL.Image
import pytest
from rich.console import Console

from pipeline.errors import (
    CheckpointError,
    InputError,
    ItemError,
    JobError,
    OutputError,
    RunError,
    SchemaError,
)
from pipeline.job import Job
from pipeline.lake.layout import LOCK, Layout
from pipeline.lake.ledger import Ledger
from pipeline.models.families import BUNDLED
from pipeline.records import MODEL_TIMES, FailureKind
from pipeline.render.renderer import DocumentInfo, Renderer
from pipeline.runners.progress import RunProgress
from pipeline.runners.run import Options, failure_kinds, run
from pipeline.runners.summary import Summary

MakeJob = Callable[..., Job]
RunJob = Callable[..., Summary]
Rows = Callable[[Path | str, str], list[dict[str, Any]]]

FAKE = {"family": "fake", "name": "fake?edge=224"}
OCR = {"task": "ocr", "schema": "text.v1", "model": FAKE}
PROVENANCE_OF_A_RUN = ("run_id", "processed_at")
COSTS = ("rasterize_s", "encode_s", *MODEL_TIMES, "drafted_tokens", "passes")
"""What guesses save depends on which samples were answered before."""


def without(rows: list[dict[str, Any]], *columns: str) -> list[dict[str, Any]]:
    kept = [{k: v for k, v in row.items() if k not in columns} for row in rows]
    return sorted(kept, key=lambda row: (row["uri"], row.get("page_numbers") or []))


@pytest.fixture(scope="module")
def demo_job(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Job]:
    def job(name: str) -> Job:
        return Job.model_validate(
            {
                "input": {"paths": [str(demo / "documents")]},
                "schema": "receipt.v1",
                "output": {"uri": str(tmp_path_factory.getbasetemp() / name)},
            }
        )

    return job


def quiet_run(job: Job, runner: str) -> Summary:
    return run(job, Options(runner=runner), Console(file=io.StringIO()))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def local_demo(demo_job: Callable[[str], Job]) -> Job:
    job = demo_job("local-demo")
    assert quiet_run(job, "local").all_ok
    return job


def test_the_demo_is_read_mostly_right(local_demo: Job, demo: Path, rows: Rows) -> None:
    truth = [json.loads(line) for line in (demo / "truth.jsonl").read_text().splitlines()]
    found = {Path(row["uri"]).name: row for row in rows(local_demo.output.uri, "documents")}
    assert set(found) == {Path(item["uri"]).name for item in truth}
    images = [item for item in truth if item["kind"] == "image"]
    right: Counter[str] = Counter()
    for item in images:
        record = found[Path(item["uri"]).name]["record"]
        right["date"] += record["date"].isoformat() == item["record"]["date"]
        right["total"] += record["total"] == Decimal(str(item["record"]["total"]))
    assert right["date"] >= 0.8 * len(images)
    assert right["total"] >= 0.8 * len(images)


def test_both_runners_give_the_same_rows(
    local_demo: Job, demo_job: Callable[[str], Job], rows: Rows, ray_session: None
) -> None:
    job = demo_job("ray-demo")
    summary = quiet_run(job, "ray")
    assert summary.all_ok
    assert summary.done.pages == 34
    for table in ("documents", "pages"):
        ours = without(rows(job.output.uri, table), *PROVENANCE_OF_A_RUN, *COSTS)
        oracle = without(rows(local_demo.output.uri, table), *PROVENANCE_OF_A_RUN, *COSTS)
        assert ours == oracle


def test_duckdb_reads_nested_fields(local_demo: Job) -> None:
    glob = f"{local_demo.output.uri}/documents/*.parquet"
    total, items = duckdb.sql(
        f"SELECT sum(record.total), sum(len(record.items)) FROM '{glob}'"
    ).fetchall()[0]
    lines = duckdb.sql(
        f"SELECT sum(line.price) FROM (SELECT unnest(record.items) AS line FROM '{glob}')"
    ).fetchall()[0][0]
    assert isinstance(total, Decimal)
    assert items > 30
    assert lines > 0


def test_every_document_and_page_ends_in_one_row(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    documents = demo / "documents"
    shutil.copy(documents / "image-01.png", folder / "good.png")
    shutil.copy(documents / "multipage-02.pdf", folder / "three pages.pdf")
    (folder / "cut.pdf").write_bytes((documents / "pdf-01.pdf").read_bytes()[:300])
    (folder / "web.pdf").write_text("<html>not a PDF</html>")
    (folder / "empty.pdf").touch()
    (folder / "notes.txt").write_text("not a document")
    summary = run_job(make_job([folder]))
    found = {Path(row["uri"]).name: row for row in rows(tmp_path / "out", "documents")}
    assert {
        name: (row["state"], row["failure_kind"], row["n_pages"]) for name, row in found.items()
    } == {
        "good.png": ("ok", None, 1),
        "three pages.pdf": ("ok", None, 3),
        "cut.pdf": ("failed", "unreadable", None),
        "web.pdf": ("failed", "unsupported", None),
        "empty.pdf": ("failed", "unreadable", None),
    }
    assert [row["failure_stage"] for row in found.values() if row["failure_kind"]] == [
        "discover"
    ] * 3
    pages = rows(tmp_path / "out", "pages")
    assert sorted(row["page_numbers"] for row in pages) == [[1], [1], [2], [3]]
    assert summary.documents == {"ok": 2, "failed": 3}
    assert summary.files_ignored == 1
    assert not summary.all_ok


def test_a_second_run_does_nothing_again(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(demo / "documents" / "image-01.png", folder)
    job = make_job([folder], **OCR)
    run_job(job)
    before = rows(tmp_path / "out", "pages")
    shutil.copy(demo / "documents" / "image-02.png", folder)
    second = run_job(job)
    assert (second.done.pages, second.pages_reused) == (1, 1)
    after = {row["uri"]: row for row in rows(tmp_path / "out", "pages")}
    assert after[before[0]["uri"]] == before[0]
    assert len(rows(tmp_path / "out", "documents")) == 2


def test_same_bytes_under_two_names_are_generated_once(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(demo / "documents" / "image-01.png", folder / name)
    summary = run_job(make_job([folder], **OCR))
    assert summary.done.pages == 1
    documents = rows(tmp_path / "out", "documents")
    assert [Path(row["uri"]).name for row in documents] == ["a.png", "b.png"]
    assert documents[0]["record"] == documents[1]["record"]
    assert len(rows(tmp_path / "out", "pages")) == 1


def test_an_output_belongs_to_one_job_until_made_fresh(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    source = demo / "documents" / "image-01.png"
    run_job(make_job([source], **OCR))
    changed = make_job([source], **OCR, generation={"max_new_tokens": 200})
    with pytest.raises(OutputError, match=r"generation\.max_new_tokens: 1024 -> 200.*--fresh"):
        run_job(changed)
    summary = run_job(changed, fresh=True)
    assert summary.done.pages == 1
    assert len(rows(tmp_path / "out", "documents")) == 1
    again = run_job(changed)
    assert again.done.pages == 0


def test_fresh_with_the_same_settings_does_everything_again(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    job = make_job([demo / "documents" / "image-01.png"], **OCR)
    first = run_job(job)
    second = run_job(job, fresh=True)
    assert second.done.pages == 1
    third = run_job(job)
    assert third.done.pages == 0
    assert {row["run_id"] for row in rows(tmp_path / "out", "pages")} == {second.run_id}
    assert first.run_id != second.run_id


def test_manifest_columns_are_carried_through(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(
        f"uri,shop\n{demo / 'documents' / 'image-01.png'},north\n{tmp_path / 'gone.pdf'},south\n"
    )
    run_job(make_job([], **OCR, input={"manifest": str(manifest)}))
    documents = {Path(row["uri"]).name: row for row in rows(tmp_path / "out", "documents")}
    assert documents["image-01.png"]["source"] == {"shop": "north"}
    assert documents["gone.pdf"]["failure_kind"] == "source_missing"
    assert documents["gone.pdf"]["source"] == {"shop": "south"}
    assert [row["source"] for row in rows(tmp_path / "out", "pages")] == [{"shop": "north"}]


def test_pages_are_selected_and_counted_as_skipped(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    source = demo / "documents" / "multipage-02.pdf"
    run_job(make_job([source], **OCR, input={"pages": "2-"}))
    (document,) = rows(tmp_path / "out", "documents")
    assert (document["n_pages"], document["pages_ok"], document["pages_skipped"]) == (3, 2, 1)
    assert sorted(row["page_numbers"] for row in rows(tmp_path / "out", "pages")) == [[2], [3]]


def test_too_many_pages_fail_the_document_whole(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    run_job(make_job([demo / "documents" / "multipage-02.pdf"], **OCR, input={"max_pages": 2}))
    (document,) = rows(tmp_path / "out", "documents")
    assert (document["state"], document["failure_kind"]) == ("failed", "too_many_pages")
    assert document["n_pages"] == 3
    assert rows(tmp_path / "out", "pages") == []


def test_a_short_token_limit_truncates_and_says_so(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    job = make_job([demo / "documents" / "image-01.png"], generation={"max_new_tokens": 5})
    summary = run_job(job)
    assert summary.documents == {"truncated": 1}
    (page,) = rows(tmp_path / "out", "pages")
    assert (page["state"], page["failure_kind"], page["output_tokens"]) == (
        "truncated",
        "truncated",
        5,
    )
    assert page["record"] is None
    assert page["raw_text"].startswith('{"merchant":"')


def test_ocr_text_of_pages_is_joined(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    job = make_job(
        [demo / "documents" / "multipage-02.pdf"],
        task="ocr",
        schema="text.v1",
        model={"family": "fake", "name": "fake?edge=224"},
    )
    run_job(job)
    (document,) = rows(tmp_path / "out", "documents")
    pages = sorted(rows(tmp_path / "out", "pages"), key=lambda row: row["page_numbers"])
    assert document["record"]["text"].split("\f") == [row["record"]["text"] for row in pages]


def test_limit_takes_the_first_documents(demo: Path, make_job: MakeJob, run_job: RunJob) -> None:
    summary = run_job(make_job([demo / "documents"], **OCR), limit=2)
    assert summary.documents == {"ok": 2}


def test_an_empty_folder_is_the_users_error(
    tmp_path: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no documents in"):
        run_job(make_job([tmp_path / "in"]))


@pytest.mark.parametrize("runner", ["local", "ray"])
def test_weights_that_do_not_load_are_the_users_error(
    tmp_path: Path,
    demo: Path,
    make_job: MakeJob,
    run_job: RunJob,
    ray_session: None,
    runner: str,
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(BUNDLED / "nano", broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    job = make_job([demo / "documents" / "image-01.png"], model={"name": str(broken)})
    with pytest.raises(CheckpointError, match="does not load"):
        run_job(job, runner=runner)


def test_failure_kinds_are_read_or_refused() -> None:
    assert failure_kinds(None) is None
    assert failure_kinds("render_timeout, model_error") == {
        FailureKind.RENDER_TIMEOUT,
        FailureKind.MODEL_ERROR,
    }
    with pytest.raises(JobError, match="'slow' is no failure kind; there are source_missing"):
        failure_kinds("slow")


def interrupted(job: Job, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Run a job and press Ctrl-C at its first commit."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunProgress, "committed", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, **options)


def test_a_mistaken_run_claims_nothing(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        run_job(make_job([tmp_path / "empty"], model=FAKE))
    picture = demo / "documents" / "image-01.png"
    other = make_job([picture], **OCR, generation={"max_new_tokens": 9})
    assert run_job(other).done.pages == 1


def test_an_interrupted_fresh_run_is_gone_on_with(
    demo: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    job = make_job([demo / "documents"], **OCR)
    first = run_job(job)
    assert first.done.pages == 34
    interrupted(job, run_job, monkeypatch, fresh=True)
    assert {row["run_id"] for row in rows(job.output.uri, "documents")} == {first.run_id}
    again = run_job(job, fresh=True)
    assert (again.done.pages, again.pages_reused) == (18, 16)
    assert run_job(job, fresh=True).done.pages == 34


def test_an_interrupted_fresh_run_of_another_job_leaves_the_first_one_usable(
    demo: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job([demo / "documents"], **OCR)
    run_job(job)
    other = job.model_copy(update={"prompt": "Read it all."})
    interrupted(other, run_job, monkeypatch, fresh=True)
    assert run_job(job).pages_reused == 34


def test_of_two_equal_files_the_one_that_opens_is_read(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(demo / "documents" / "image-01.png", folder / name)
    opened = Renderer.open

    def flaky(self: Renderer, source: Path, *rest: Any) -> DocumentInfo:
        if source.name == "a.png":
            raise ItemError(FailureKind.RENDER_TIMEOUT, "too slow this time")
        return opened(self, source, *rest)

    monkeypatch.setattr(Renderer, "open", flaky)
    job = make_job([folder], **OCR)
    assert run_job(job).documents == {"failed": 1, "ok": 1}


def test_of_equal_files_the_first_lends_its_name_under_ray_too(
    tmp_path: Path, make_job: MakeJob, run_job: RunJob, rows: Rows, ray_session: None
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(70):
        shade = 0 if number in (0, 69) else number
        PIL.Image.new("L", (40, 30), shade).save(folder / f"{number:02}.png")
    run_job(make_job([folder], **OCR), runner="ray")
    names = sorted(Path(row["uri"]).name for row in rows(tmp_path / "out", "pages"))
    assert names == [f"{number:02}.png" for number in range(69)]


def test_a_table_that_cannot_be_is_refused_before_any_work(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    schema = tmp_path / "odd.json"
    schema.write_text(
        json.dumps(
            {"type": "object", "properties": {"a": {"type": "number", "x-arrow": "decimal(5,2)"}}}
        )
    )
    with pytest.raises(SchemaError, match="x-arrow"):
        run_job(make_job([demo / "documents" / "image-01.png"], schema=str(schema)))
    assert not (tmp_path / "out").exists()


def test_an_output_named_like_markup_is_printed_as_it_is(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    job = make_job(
        [demo / "documents" / "image-01.png"], output={"uri": str(tmp_path / "o[/x]")}, model=FAKE
    )
    screen = io.StringIO()
    run_job(job).print(Console(file=screen, width=500))
    assert "o[/x]" in screen.getvalue()


def test_a_small_run_in_between_does_not_undo_a_big_one(
    demo: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job([demo / "documents"], **OCR)
    interrupted(job, run_job, monkeypatch)
    run_job(job, limit=1)
    assert run_job(job).pages_reused == 16


def test_pages_of_a_replaced_file_leave_the_table(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    source = tmp_path / "x.pdf"
    job = make_job([source], **OCR)
    shutil.copy(demo / "documents" / "multipage-02.pdf", source)
    run_job(job)
    shutil.copy(demo / "documents" / "pdf-01.pdf", source)
    run_job(job)
    assert [row["n_pages"] for row in rows(tmp_path / "out", "pages")] == [1]


def test_retry_and_fresh_exclude_each_other(demo: Path, make_job: MakeJob, run_job: RunJob) -> None:
    job = make_job([demo / "documents" / "image-01.png"])
    with pytest.raises(JobError, match="--retry"):
        run_job(job, fresh=True, retry=frozenset({FailureKind.MODEL_ERROR}))


def test_a_list_past_the_bound_ends_its_answer_as_truncated(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    pictures = [demo / "documents" / f"image-{n:02}.png" for n in (1, 2)]
    run_job(make_job(pictures, generation={"max_items": 3}))
    four, three = sorted(rows(tmp_path / "out", "pages"), key=lambda page: page["uri"])
    assert (four["state"], four["failure_kind"], four["record"]) == ("truncated", "truncated", None)
    assert len(json.loads(four["raw_text"])["items"]) == 4
    assert three["state"] == "ok"
    assert len(three["record"]["items"]) == 3


def test_a_bound_on_lists_that_no_answer_can_keep_is_told_at_once(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    schema = tmp_path / "mine.json"
    box = {"$ref": "#/$defs/numbers", "minItems": 6}
    numbers = {"type": "array", "items": {"type": "integer"}}
    document = {"type": "object", "properties": {"box": box}, "required": ["box"]}
    schema.write_text(json.dumps(document | {"$defs": {"numbers": numbers}}))
    job = make_job([demo], schema=str(schema), generation={"max_items": 3})
    with pytest.raises(SchemaError, match=r"generation\.max_items 3; raise that"):
        run_job(job)


def test_a_schema_that_the_model_cannot_spell_says_so(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows
) -> None:
    schema = tmp_path / "mine.json"
    properties = {"shelf": {"type": "integer"}}
    schema.write_text(
        json.dumps({"type": "object", "properties": properties, "required": ["shelf"]})
    )
    mute = tmp_path / "mute"
    shutil.copytree(BUNDLED / "nano", mute)
    tokenizer = json.loads((mute / "tokenizer.json").read_text())
    letter = {"id": tokenizer["model"]["vocab"]["h"], "content": "h", "special": True}
    shape = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"].append(letter | shape)
    tokenizer["added_tokens"].sort(key=lambda token: token["id"])
    (mute / "tokenizer.json").write_text(json.dumps(tokenizer))
    picture, model = demo / "documents" / "image-01.png", {"name": str(mute)}
    run_job(make_job([picture], schema=str(schema), model=model))
    (page,) = rows(tmp_path / "out", "pages")
    assert page["failure_kind"] == "model_error"
    assert "tokenizer cannot write" in page["failure_message"]


@pytest.mark.parametrize("step", ["committed", "assembling"])
def test_a_run_that_lost_its_lock_publishes_nothing(
    demo: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    job = make_job([demo / "documents" / "image-01.png"], **OCR)
    layout = Layout.open(job.output.uri)
    monkeypatch.setattr(RunProgress, step, lambda *_: layout.delete(LOCK))
    with pytest.raises(RunError, match="this run lost its lock: it was deleted"):
        run_job(job)
    assert Ledger(layout).manifest() is None
    assert len(Ledger(layout).commits()) == 1
    monkeypatch.undo()
    assert run_job(job).pages_reused == 1


def test_a_run_gives_its_lock_back(
    demo: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job([demo / "documents" / "image-01.png"], **OCR)
    interrupted(job, run_job, monkeypatch)
    assert not Layout.open(job.output.uri).exists(LOCK)
    run_job(job)
    assert not Layout.open(job.output.uri).exists(LOCK)


def test_a_damaged_identity_is_named_and_may_be_deleted(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    job = make_job([demo / "documents" / "image-01.png"], **OCR)
    run_job(job)
    (identity,) = (tmp_path / "out" / "_pagelake" / "identities").iterdir()
    for text in ("", "[]", '{"salt": 3}', "[" * 100_000):
        identity.write_text(text)
        with pytest.raises(OutputError, match=rf"identities/{identity.name} is damaged; .* delete"):
            run_job(job)
    identity.unlink()
    assert run_job(job).pages_reused == 1


@pytest.mark.parametrize("table", ["pages", "documents"])
def test_a_lost_file_of_a_finished_run_is_named_and_fresh_does_without_it(
    tmp_path: Path, demo: Path, make_job: MakeJob, run_job: RunJob, rows: Rows, table: str
) -> None:
    job = make_job([demo / "documents" / "image-01.png"], **OCR)
    run_job(job)
    (file,) = (tmp_path / "out" / table).iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(OutputError, match=rf"{table}/{file.name} is damaged \(.*copy back, or"):
        run_job(job)
    file.unlink()
    with pytest.raises(OutputError, match=rf"{table}/{file.name} is gone, .* with --fresh"):
        run_job(job)
    assert run_job(job, fresh=True).done.pages == 1
    assert len(rows(tmp_path / "out", table)) == 1
