from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import pyarrow as pa
import pytest

from pipeline.errors import ItemError
from pipeline.lake.tables import documents_schema, documents_table, pages_schema, pages_table
from pipeline.records import (
    MODEL_COUNTS,
    MODEL_TIMES,
    Document,
    DocumentResult,
    FailureKind,
    MediaType,
    Plan,
    Provenance,
    State,
)

NOW = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, dt.UTC)
PROVENANCE = Provenance("r1", "extract", "s.v1", "nano", "rev", "prompt", "0.1.0", "f1")
MONEY = pa.struct([("total", pa.decimal128(12, 2))])

SHARED = [
    "document_id",
    "uri",
    "n_pages",
    "state",
    "task",
    "failure_kind",
    "failure_stage",
    "failure_message",
    "record",
    "record_json",
    "schema_id",
    "model_id",
    "model_revision",
    "prompt_hash",
    "pipeline_version",
    "run_id",
    "processed_at",
    "fingerprint",
    "source",
    "confidence",
    "evidence",
    "conflicts",
]
PAGES = ["page_numbers", "raw_text", "attempts", "prompt_tokens", "output_tokens"]
TIMINGS = ["rasterize_s", "encode_s", *MODEL_TIMES, *MODEL_COUNTS]
COUNTS = ["pages_ok", "pages_truncated", "pages_failed", "pages_skipped"]
DOCUMENTS = [*COUNTS, "field_pages", "row_digest"]


def plan(n_pages: int | None = 3, **source: str) -> Plan:
    document = Document("/in/a.pdf", 1, "m", MediaType.PDF, source)
    return Plan(document, "d", n_pages, (1, 2))


def test_the_columns_are_the_published_ones_and_explain_themselves():
    assert pages_schema(MONEY).names == [*SHARED, *PAGES, *TIMINGS]
    assert documents_schema(MONEY).names == [*SHARED, *DOCUMENTS]
    for field in [*pages_schema(MONEY), *documents_schema(MONEY)]:
        assert len(field.metadata[b"description"]) > 3


def test_a_good_and_a_failed_page_have_the_same_columns(output):
    pages = [
        output.page("a", 2, {"total": Decimal("1.50")}),
        output.page("a", 3, fails=FailureKind.RENDER_CRASH),
    ]
    table = pages_table(pages, [{"shop": "x"}, {}], PROVENANCE, MONEY, NOW)
    good, bad = table.to_pylist(maps_as_pydicts="strict")
    assert good["record"] == {"total": Decimal("1.50")}
    assert good["record_json"] == '{"total":1.50}'
    assert good["source"] == {"shop": "x"}
    assert good["page_numbers"] == [2]
    assert good["processed_at"] == NOW
    assert (good["failure_kind"], good["failure_stage"], good["confidence"]) == (None, None, None)
    assert (bad["state"], bad["failure_kind"], bad["failure_stage"], bad["failure_message"]) == (
        "failed",
        "render_crash",
        "rasterize",
        "bad",
    )
    assert (bad["record"], bad["record_json"], bad["source"]) == (None, None, {})


def test_pages_that_were_not_read_are_skipped():
    rows = [
        DocumentResult(plan(3), State.OK, pages_ok=1, pages_failed=1),
        DocumentResult(plan(None), State.FAILED),
    ]
    table = documents_table(rows, PROVENANCE, MONEY, NOW)
    assert table["pages_skipped"].to_pylist() == [1, None]


def test_conflicts_and_field_pages_are_json_or_null():
    rows = [
        DocumentResult(
            plan(shop="x"),
            State.OK,
            conflicts={"total": [{"page": 2, "value": Decimal("1.10")}]},
            field_pages={"total": 1},
        ),
        DocumentResult(plan(), State.OK),
    ]
    table = documents_table(rows, PROVENANCE, MONEY, NOW)
    assert table["conflicts"].to_pylist() == ['{"total":[{"page":2,"value":1.10}]}', None]
    assert table["field_pages"].to_pylist() == ['{"total":1}', None]
    assert table["source"].to_pylist(maps_as_pydicts="strict") == [{"shop": "x"}, {}]


def test_a_record_that_does_not_fit_is_never_rounded(output):
    page = output.page("a", 1, {"total": Decimal("1.005")})
    with pytest.raises(ItemError, match=r"1\.005 does not fit"):
        pages_table([page], [{}], PROVENANCE, MONEY, NOW)


def test_text_that_utf8_cannot_hold_is_escaped(output):
    page = output.page("a", 1, fails=FailureKind.TRUNCATED)
    page = replace(page, id=replace(page.id, uri="/in/a\udcff.pdf"), raw_text="\ud800")
    table = pages_table([page], [{}], PROVENANCE, MONEY, NOW)
    assert table["uri"].to_pylist() == ["/in/a\\udcff.pdf"]
    assert table["raw_text"].to_pylist() == ["\\ud800"]


def test_sources_must_match_results(output):
    with pytest.raises(ValueError, match="1 results and 0 sources"):
        pages_table([output.page("a", 1, {})], [], PROVENANCE, MONEY, NOW)
