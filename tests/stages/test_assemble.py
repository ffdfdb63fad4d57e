from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConservationError
from pipeline.lake import buckets, parquet
from pipeline.lake.exact_json import dumps
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Ledger
from pipeline.lake.types import arrow_type
from pipeline.records import (
    Document,
    Failure,
    FailureKind,
    MediaType,
    PageResult,
    Plan,
    Provenance,
    SampleId,
    StageName,
    State,
)
from pipeline.stages.assemble import Assembly, assemble, merge
from pipeline.stages.write import write_pages

SCHEMA = {
    "properties": {
        "total": {"type": "number", "x-arrow": "decimal128(12, 2)"},
        "items": {"type": "array", "items": {"properties": {"sku": {"type": "string"}}}},
        "note": {"type": "string"},
        "text": {"type": "string"},
    },
    "required": ["total"],
}
TEXT_SCHEMA = {"properties": {"text": {"type": "string"}}, "required": ["text"]}
RECORD = arrow_type(SCHEMA)
CRASH = Failure(StageName.RASTERIZE, FailureKind.RENDER_CRASH, "died")
CUT = Failure(StageName.GENERATE, FailureKind.TRUNCATED, "cut")
LOCKED = Failure(StageName.DISCOVER, FailureKind.ENCRYPTED, "locked")


def validate(record: Any) -> str | None:
    if not isinstance(record, dict) or record.get("total") is None:
        return "total is missing"
    return None


def plan(
    document: str | None, n_pages: int | None, pages: Iterable[int] | None = None, uri: str = ""
) -> Plan:
    listed = Document(uri or f"/in/{document}.pdf", 1, "m", MediaType.PDF, {"shop": "x"})
    chosen = range(1, (n_pages or 0) + 1) if pages is None else pages
    return Plan(listed, document, n_pages, tuple(chosen))


def ok(document: str, n_pages: int, number: int, record: Any) -> PageResult:
    sample = SampleId(document, f"/in/{document}.pdf", n_pages, (number,))
    return PageResult(sample, State.OK, record=record, record_json=dumps(record))


def bad(document: str, n_pages: int, number: int, failure: Failure = CRASH) -> PageResult:
    sample = SampleId(document, f"/in/{document}.pdf", n_pages, (number,))
    return PageResult(sample, State.TRUNCATED if failure is CUT else State.FAILED, failure)


def total(number: int, value: Any, n_pages: int = 2) -> PageResult:
    return ok("d", n_pages, number, {"total": value})


class TestMerge:
    @pytest.mark.parametrize(
        ("pages", "state", "failure", "record"),
        [
            ([total(1, 1), total(2, None)], State.OK, None, {"total": 1}),
            ([total(1, 1), bad("d", 2, 2)], State.PARTIAL, CRASH, {"total": 1}),
            ([total(1, None), bad("d", 2, 2)], State.PARTIAL, CRASH, None),
            ([bad("d", 2, 1, CUT), bad("d", 2, 2)], State.PARTIAL, CRASH, None),
            ([bad("d", 2, 1), bad("d", 2, 2)], State.FAILED, CRASH, None),
            ([total(1, 1), bad("d", 2, 2, CUT)], State.TRUNCATED, CUT, {"total": 1}),
            ([bad("d", 2, 1, CUT), bad("d", 2, 2, CUT)], State.TRUNCATED, CUT, None),
        ],
    )
    def test_state_follows_the_pages(self, pages, state, failure, record):
        found = merge(plan("d", 2), pages, validate, SCHEMA)
        assert (found.state, found.failure, found.record) == (state, failure, record)
        assert found.pages_ok + found.pages_truncated + found.pages_failed == 2

    def test_a_merged_record_that_breaks_the_schema_fails_the_document(self):
        found = merge(plan("d", 2), [total(1, None), total(2, None)], validate, SCHEMA)
        assert found.state is State.FAILED
        assert found.failure == Failure(
            StageName.ASSEMBLE, FailureKind.SCHEMA_VIOLATION, "total is missing"
        )
        assert (found.record, found.record_json) == (None, '{"total":null}')

    def test_numbers_stay_exact_and_conflicts_are_reported(self):
        pages = [total(1, Decimal("0.10")), total(2, Decimal("0.20"))]
        found = merge(plan("d", 2), pages, validate, SCHEMA)
        assert found.record_json == '{"total":0.10}'
        assert found.conflicts == {"total": [{"page": 2, "value": Decimal("0.20")}]}
        assert found.field_pages == {"total": 1}

    def test_what_no_page_states_is_left_out_unless_required(self):
        pages = [ok("d", 2, n, {"total": 1, "note": None}) for n in (1, 2)]
        assert merge(plan("d", 2), pages, validate, SCHEMA).record == {"total": 1}

    @pytest.mark.parametrize(
        "page", [ok("d", 1, 1, {"total": None}), bad("d", 1, 1), bad("d", 1, 1, CUT)]
    )
    def test_a_whole_document_passes_through(self, page):
        found = merge(plan("d", 1), [page], validate, SCHEMA)
        assert (found.state, found.failure) == (page.state, page.failure)
        assert (found.record, found.record_json) == (page.record, page.record_json)

    def test_one_page_of_many_is_held_to_the_true_schema(self):
        found = merge(plan("d", 9, [4]), [total(4, None, 9)], validate, SCHEMA)
        assert found.state is State.FAILED

    def test_a_plan_without_pages_is_an_empty_document(self):
        found = merge(plan("d", 3, []), [], validate, SCHEMA)
        assert (found.state, found.failure.kind) == (State.FAILED, FailureKind.EMPTY)

    def test_a_plan_that_failed_is_a_document_that_failed(self):
        found = merge(replace(plan(None, None), failure=LOCKED), [], validate, SCHEMA)
        assert (found.state, found.failure, found.pages_failed) == (State.FAILED, LOCKED, 0)


@dataclass(frozen=True)
class Lake:
    ledger: Ledger

    def provenance(self, run: str, fingerprint: str = "f1") -> Provenance:
        return Provenance(run, "extract", "s.v1", "nano", "rev", "prompt", "0.1.0", fingerprint)

    def write(self, pages: Sequence[PageResult], run: str = "r1", fingerprint: str = "f1") -> None:
        provenance = self.provenance(run, fingerprint)
        write_pages(self.ledger, pages, [{}] * len(pages), provenance, RECORD)

    def assemble(self, plans: Iterable[Plan], run: str = "r1", fingerprint: str = "f1") -> Assembly:
        provenance = self.provenance(run, fingerprint)
        return assemble(
            self.ledger, plans, provenance, SCHEMA, validate, ["_pagelake/runs/r1/plans.parquet"]
        )

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run SQL over plain globs, as users do."""
        root = self.ledger.layout.root
        for table in ("documents", "pages"):
            sql = sql.replace(f"from {table}", f"from '{root}/{table}/*.parquet'")
        return duckdb.sql(sql).fetchall()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    layout = Layout.open(str(tmp_path / "out"))
    layout.prepare()
    return Lake(Ledger(layout))


def test_documents_are_made_published_and_readable(lake):
    first = {"total": Decimal("12.30"), "items": [{"sku": "a"}]}
    lake.write([ok("d", 2, 1, first), ok("d", 2, 2, {"total": None, "items": [{"sku": "b"}]})])
    lake.write([ok("e", 1, 1, {"total": Decimal("0.10")}), bad("f", 1, 1)])
    locked = replace(plan(None, None, uri="/in/locked.pdf"), failure=LOCKED)
    made = lake.assemble([plan("d", 2), locked, plan("e", 1), plan("f", 1)])

    assert made.documents == {"ok": 2, "failed": 2}
    assert made.failures == {"encrypted": 1, "render_crash": 1}
    assert made.pages == {"ok": 3, "truncated": 0, "failed": 1}
    assert made.carried == 0
    assert lake.query(
        "select uri, state, n_pages, record.total, pages_skipped from documents order by uri"
    ) == [
        ("/in/d.pdf", "ok", 2, Decimal("12.30"), 0),
        ("/in/e.pdf", "ok", 1, Decimal("0.10"), 0),
        ("/in/f.pdf", "failed", 1, None, 0),
        ("/in/locked.pdf", "failed", None, None, None),
    ]
    items = lake.query("select unnest(record.items).sku from documents where document_id = 'd'")
    assert items == [("a",), ("b",)]
    ((pages, source),) = lake.query(
        "select field_pages, source from documents where document_id = 'd'"
    )
    assert json.loads(pages) == {"total": 1, "items[0]": 1, "items[1]": 2}
    assert source == {"shop": "x"}

    manifest = lake.ledger.manifest()
    assert manifest == made.manifest
    assert manifest.counts.documents == {"ok": 2, "failed": 2}
    assert manifest.counts.pages == {"ok": 3, "failed": 1}
    assert (manifest.schema, manifest.plans) == (SCHEMA, ("_pagelake/runs/r1/plans.parquet",))


def test_finishing_leaves_one_small_file_a_table_and_no_commits(lake):
    for number in range(1, 6):
        lake.write([ok("d", 5, number, {"total": 1})])
    lake.ledger.layout.write_bytes("pages/r0-of-a-killed-task.parquet", b"torn")
    lake.assemble([plan("d", 5)])
    layout = lake.ledger.layout
    assert len(layout.list("pages")) == len(layout.list("documents")) == 1
    assert layout.list("_pagelake/commits") == []
    assert lake.ledger.manifest().folded == {}
    assert lake.query("select count(*) from pages") == [(5,)]


def test_two_uris_with_the_same_bytes_get_a_document_each(lake):
    lake.write([ok("d", 1, 1, {"total": 1})])
    lake.assemble([plan("d", 1), plan("d", 1, uri="/in/copy.pdf")])
    assert lake.query("select uri, document_id from documents order by uri") == [
        ("/in/copy.pdf", "d"),
        ("/in/d.pdf", "d"),
    ]


def test_the_table_grows_over_runs(lake):
    lake.write([ok("d", 1, 1, {"total": 1}), ok("e", 1, 1, {"total": 2})])
    lake.assemble([plan("d", 1), plan("e", 1)])
    lake.write([ok("f", 1, 1, {"total": 3}), ok("d2", 1, 1, {"total": 4})], run="r2")
    made = lake.assemble([plan("f", 1), plan("d2", 1, uri="/in/d.pdf")], run="r2")
    assert (made.documents, made.carried) == ({"ok": 2}, 1)
    assert made.manifest.runs == ("r1", "r2")
    assert lake.query("select uri, record.total, run_id from documents order by uri") == [
        ("/in/d.pdf", Decimal(4), "r2"),
        ("/in/e.pdf", Decimal(2), "r1"),
        ("/in/f.pdf", Decimal(3), "r2"),
    ]


def test_pages_stay_while_a_document_has_their_id(lake):
    lake.write([ok("d", 3, number, {"total": 1}) for number in (1, 2, 3)])
    lake.write([ok("e", 1, 1, {"total": 1}), ok("c", 2, 1, {"total": 1}), bad("c", 2, 2)])
    copied = [plan("c", 2), plan("c", 2, uri="/in/copy.pdf")]
    lake.assemble([plan("d", 3), plan("e", 1), *copied])
    lake.write([ok("d2", 1, 1, {"total": 4}), ok("c2", 1, 1, {"total": 5})], run="r2")
    replaced = [plan("d2", 1, uri="/in/d.pdf"), plan("c2", 1, uri="/in/copy.pdf")]
    made = lake.assemble(replaced, run="r2")
    assert lake.query("select document_id, count(*) from pages group by all order by all") == [
        ("c", 2),
        ("c2", 1),
        ("d2", 1),
        ("e", 1),
    ]
    assert made.manifest.counts.pages == {"ok": 4, "failed": 1}


def test_every_commit_is_read_once(lake, monkeypatch):
    for number in (1, 2, 3):
        lake.write([ok("d", 3, number, {"total": 1})])
    read: list[str] = []
    read_bytes = Layout.read_bytes

    def noted(layout: Layout, name: str) -> bytes:
        read.append(name)
        return read_bytes(layout, name)

    monkeypatch.setattr(Layout, "read_bytes", noted)
    commits = lake.ledger.layout.list("_pagelake/commits")
    lake.assemble([plan("d", 3)])
    assert sorted(name for name in read if "/commits/" in name) == commits


def test_a_commit_without_its_file_is_done_again(lake):
    lake.write([ok("d", 2, 1, {"total": 1})])
    lost = lake.ledger.layout.list("pages")
    lake.write([ok("d", 2, 2, {"note": "n"})])
    lake.ledger.layout.delete(*lost)
    lake.write([ok("d", 2, 1, {"total": 2})], run="r2")
    assert lake.assemble([plan("d", 2)], run="r2").documents == {"ok": 1}
    assert lake.query("select record.total from documents") == [(Decimal(2),)]
    assert lake.ledger.layout.list("_pagelake/commits") == []


def test_a_run_again_changes_nothing(lake):
    lake.write([ok("d", 1, 1, {"total": 1})])
    lake.assemble([plan("d", 1)])
    pages = lake.ledger.page_files()
    for run in ("r1", "r2"):
        assert lake.assemble([plan("d", 1)], run=run).documents == {"ok": 1}
        assert lake.ledger.page_files() == pages
        assert lake.query("select uri, record.total from documents") == [("/in/d.pdf", Decimal(1))]


def test_a_page_done_again_replaces_the_failed_one(lake):
    lake.write([ok("d", 2, 1, {"total": 1}), bad("d", 2, 2)])
    assert lake.assemble([plan("d", 2)]).documents == {"partial": 1}
    lake.write([ok("d", 2, 2, {"note": "n"})], run="r2")
    assert lake.assemble([plan("d", 2)], run="r2").documents == {"ok": 1}
    assert lake.query("select record.total, record.note from documents") == [(Decimal(1), "n")]
    assert lake.query("select count(*) from pages") == [(2,)]


def test_pages_done_again_in_other_company_replace_what_was(lake):
    whole = bad("d", 3, 1)
    lake.write([replace(whole, id=replace(whole.id, page_numbers=(1, 2, 3)))])
    assert lake.assemble([plan("d", 3)]).pages == {"ok": 0, "truncated": 0, "failed": 3}
    part = ok("d", 3, 1, {"total": 1})
    lake.write([replace(part, id=replace(part.id, page_numbers=(1, 3))), bad("d", 3, 2)], run="r2")
    made = lake.assemble([plan("d", 3)], run="r2")
    assert made.documents == {"partial": 1}
    assert made.pages == {"ok": 2, "truncated": 0, "failed": 1}
    assert lake.query("select page_numbers, run_id from pages order by all") == [
        ([1, 3], "r2"),
        ([2], "r2"),
    ]


def test_pages_of_an_earlier_selection_are_left_out(lake):
    lake.write([ok("d", 3, number, {"total": number}) for number in (1, 2, 3)])
    lake.assemble([plan("d", 3)])
    made = lake.assemble([plan("d", 3, [2])], run="r2")
    assert made.pages == {"ok": 1, "truncated": 0, "failed": 0}
    assert lake.query("select record.total, pages_skipped from documents") == [(Decimal(2), 2)]


def test_another_fingerprint_replaces_the_tables_when_it_has_finished(lake):
    lake.write([ok("d", 1, 1, {"total": 1}), ok("e", 1, 1, {"total": 2})])
    lake.assemble([plan("d", 1), plan("e", 1)])
    lake.write([ok("d", 1, 1, {"total": 9})], run="r2", fingerprint="f2")
    assert lake.query("select count(*) from documents") == [(2,)]
    made = lake.assemble([plan("d", 1)], run="r2", fingerprint="f2")
    assert (made.carried, made.manifest.runs) == (0, ("r2",))
    assert lake.query("select uri, record.total from documents") == [("/in/d.pdf", Decimal(9))]
    assert lake.query("select fingerprint from pages") == [("f2",)]


def test_ocr_joins_the_text_of_pages(lake):
    provenance = replace(lake.provenance("r1"), task="ocr")
    record_type = arrow_type(TEXT_SCHEMA)
    pages = [ok("d", 3, 1, {"text": "one"}), bad("d", 3, 2), ok("d", 3, 3, {"text": "three"})]
    write_pages(lake.ledger, pages, [{}] * 3, provenance, record_type)
    assemble(lake.ledger, [plan("d", 3)], provenance, TEXT_SCHEMA, lambda _: None)
    assert lake.query("select state, record.text from documents") == [
        ("partial", "one\f\fthree"),
    ]


def test_a_merged_record_that_the_table_cannot_hold_fails_the_document(lake):
    # The pages were written for a wider type, so that only the document's record can be at fault.
    record_type = arrow_type({"properties": {"total": {}}})
    pages = [ok("d", 2, 1, {"total": Decimal("0.001")}), ok("d", 2, 2, {"total": None})]
    write_pages(lake.ledger, pages, [{}] * 2, lake.provenance("r1"), record_type)
    lake.assemble([plan("d", 2)])
    ((state, stage, kind),) = lake.query("select state, failure_stage, failure_kind from documents")
    assert (state, stage, kind) == ("failed", "assemble", "schema_violation")


class TestConservation:
    def expect(self, lake: Lake, plans: Iterable[Plan], message: str) -> None:
        with pytest.raises(ConservationError, match=message):
            lake.assemble(plans)
        assert lake.ledger.manifest() is None
        assert lake.ledger.page_files() != []

    def test_a_missing_page_is_named(self, lake):
        lake.write([ok("d", 9, 1, {"total": 1})])
        self.expect(
            lake, [plan("d", 9)], r"8 pages are planned .*: /in/d.pdf page 2, .* page 6, \."
        )

    def test_a_page_in_two_rows_is_named(self, lake):
        page = ok("d", 2, 1, {"total": 1})
        both = replace(page, id=replace(page.id, page_numbers=(1, 2)))
        lake.write([both, page])  # each is the newest of a page
        self.expect(lake, [plan("d", 2)], r"1 pages are in more than one row: /in/d.pdf page 1")

    @pytest.mark.parametrize("stray", [ok("d", 2, 2, {"total": 1}), ok("x", 1, 1, {"total": 1})])
    def test_a_row_that_was_not_planned_is_named(self, lake, stray):
        lake.write([ok("d", 2, 1, {"total": 1}), stray])
        name = stray.id.document_id
        self.expect(lake, [plan("d", 2, [1])], f"not planned: document {name} page")

    def test_a_document_planned_twice_is_counted(self, lake):
        lake.write([ok("d", 1, 1, {"total": 1})])
        self.expect(lake, [plan("d", 1), plan("d", 1)], "1 documents are planned more than once")

    def test_compacted_files_that_lack_a_row_are_not_published(self, lake, monkeypatch):
        def lossy(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
            for group in row_groups(tables):
                yield group.slice(1) if "page_numbers" in group.column_names else group

        row_groups = parquet.row_groups
        monkeypatch.setattr(parquet, "row_groups", lossy)
        for number in (1, 2, 3):
            lake.write([ok("d", 3, number, {"total": 1})])
        before = lake.ledger.page_files()
        self.expect(lake, [plan("d", 3)], "3 rows were to be in new files and 2 are")
        assert lake.ledger.page_files() == before


class Crash(BaseException):
    """Stands for the process being killed."""


@pytest.mark.parametrize("step", ["publish", "sweep"])
def test_a_crash_around_the_swap_is_mended_by_the_next_run(lake, monkeypatch, step):
    lake.write([ok("d", 1, 1, {"total": 1})])
    lake.assemble([plan("d", 1)])
    lake.write([ok("d", 1, 1, {"total": 2}), ok("e", 1, 1, {"total": 3})], run="r2")

    def die(*_: object) -> None:
        raise Crash

    plans = [plan("d", 1), plan("e", 1)]
    monkeypatch.setattr(Ledger, step, die)
    with pytest.raises(Crash):
        lake.assemble(plans, run="r2")
    monkeypatch.undo()

    root = lake.ledger.layout.root
    live = [pq.read_table(f"{root}/{name}") for name in lake.ledger.document_files()]
    uris = [uri for table in live for uri in table["uri"].to_pylist()]
    folded = lake.ledger.manifest().folded
    assert len(folded) == (0 if step == "publish" else 1)
    assert sorted(uris) == (["/in/d.pdf"] if step == "publish" else ["/in/d.pdf", "/in/e.pdf"])
    assert lake.ledger.orphans() != []

    assert lake.assemble(plans, run="r2").documents == {"ok": 2}
    assert lake.ledger.orphans() == []
    assert lake.query("select uri, record.total from documents order by uri") == [
        ("/in/d.pdf", Decimal(2)),
        ("/in/e.pdf", Decimal(3)),
    ]
    assert lake.query("select count(*) from pages") == [(2,)]


def test_thirty_thousand_pages_take_seconds(lake, monkeypatch):
    monkeypatch.setattr(buckets, "ROWS_PER_BUCKET", 10_000)
    n_documents, n_pages = 6_000, 5

    def pages(document: int) -> list[PageResult]:
        name = f"{document:064x}"
        first = ok(name, n_pages, 1, {"total": document})
        return [first, *(ok(name, n_pages, n, {"note": "x"}) for n in range(2, n_pages + 1))]

    for start in range(0, n_documents, 2_000):
        lake.write([page for n in range(start, start + 2_000) for page in pages(n)])
    began = time.monotonic()
    made = lake.assemble(plan(f"{n:064x}", n_pages) for n in range(n_documents))
    assert time.monotonic() - began < 20
    assert made.documents == {"ok": n_documents}
    assert lake.query("select count(distinct uri), sum(record.total) from documents") == [
        (n_documents, Decimal(n_documents * (n_documents - 1) // 2))
    ]
    assert lake.query("select count(*) from pages") == [(n_documents * n_pages,)]


def test_a_table_that_grows_bit_by_bit_has_few_files_and_leaves_large_ones(lake, monkeypatch):
    monkeypatch.setattr(parquet, "TINY_FILE_BYTES", 0)  # as if each were many megabytes
    rewritten = 0
    before: set[str] = set()
    for number in range(40):
        run = f"r{number:02}"
        lake.write([ok(f"d{number}", 1, 1, {"total": number})], run=run)
        made = lake.assemble([plan(f"d{number}", 1)], run=run)
        files = set(made.manifest.documents)
        rewritten += len(before - files)
        before = files
        assert (len(files) <= 8, len(made.manifest.pages) <= 8) == (True, True)
    assert rewritten < 40
    assert lake.query("select count(*), count(distinct uri) from documents") == [(40, 40)]
    assert lake.query("select count(*), sum(total) from (select record.total from pages)") == [
        (40, Decimal(780))
    ]

    monkeypatch.setattr(parquet, "SMALL_FILE_BYTES", 1)
    last = made.manifest.documents[-1]
    changed = pq.read_table(f"{lake.ledger.layout.root}/{last}")["uri"].to_pylist()[0]
    lake.write([ok("other", 1, 1, {"total": 1})], run="s")
    made = lake.assemble([plan("other", 1, uri=changed)], run="s")
    assert before - set(made.manifest.documents) == {last}
    assert (made.documents, made.carried) == ({"ok": 1}, 39)
    assert lake.query("select count(*), count(distinct uri) from documents") == [(40, 40)]
