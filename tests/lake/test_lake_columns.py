"""Columns of Iceberg and Delta tables: types, newer schemas, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import lake_tables as proof
import pyarrow as pa
import pytest
from lake_output import Lake, row
from lake_piles import SCHEMA, make_documents

from pipeline.errors import OutputError
from pipeline.lake.columns import conform
from pipeline.lake.tables import documents_schema


@pytest.fixture(params=["iceberg", "delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(tmp_path, request.param)


def test_every_type_of_a_document_comes_back(lake: Lake) -> None:
    record = {
        "vendor": "Ä",
        "day": date(2024, 2, 29),
        "total": Decimal("9999999999.99"),
        "lines": [{"text": None, "price": Decimal("0.10")}, None],
    }
    rows = [
        row("a", record, processed_at=datetime(2024, 1, 1, 0, 0, 0, 7, UTC), source=[("k", "v")]),
        row("b", {**record, "lines": None}, source=[]),
        row("c", {**record, "lines": []}),
        row("d", None),
    ]
    documents = lake.documents("a", rows)
    lake.upsert(documents)
    expected = pa.Table.from_batches(documents.rows(documents.digests == documents.digests))
    found = lake.rows()
    assert found == expected.to_pylist(maps_as_pydicts="strict")
    # Rows that are written again, beside one that changed, are as they were.
    lake.upsert(lake.documents("b", [row("d", record)]))
    assert lake.rows()[:3] == found[:3]


def test_a_newer_schema_adds_fields_at_any_depth(lake: Lake) -> None:
    old = pa.struct(
        [("total", pa.int64()), ("lines", pa.list_(pa.struct([("text", pa.string())])))]
    )
    line = pa.struct([("text", pa.string()), ("tax", pa.float64())])
    new = pa.struct([("shop", pa.string()), ("total", pa.int64()), ("lines", pa.list_(line))])
    lake.upsert(lake.documents("a", [row("x", {"total": 1, "lines": [{"text": "q"}]})], old))
    record = {"shop": "s", "total": 2, "lines": [{"text": "r", "tax": 0.5}]}
    newer = lake.documents("b", [row("x", record, "s.v2")], new)
    assert lake.upsert(newer).inserted == 1
    # An old document that changes is written with the new columns, null.
    lake.upsert(lake.documents("c", [row("x", {"total": 3, "lines": [{"text": "q"}]})], old))
    first, second = (one["record"] for one in lake.rows())
    assert first == {"shop": None, "total": 3, "lines": [{"text": "q", "tax": None}]}
    assert second == record


def test_an_incompatible_schema_is_refused_with_the_path_and_both_types(lake: Lake) -> None:
    lake.upsert(make_documents(lake.layout, "a", 1))
    other = pa.struct([("total", pa.string()), ("vendor", pa.string())])
    with pytest.raises(
        OutputError,
        match=r"output\.table .*: record\.total is decimal\(12, 2\) in the table and string in the "
        "job's schema; choose another output",
    ):
        lake.check(documents_schema(other))


def test_iceberg_widens_columns_and_delta_refuses(lake: Lake) -> None:
    wide = pa.struct([("total", pa.decimal128(20, 2))])
    lake.upsert(lake.documents("a", [row("x", {"total": Decimal(1)})]))
    if lake.format == "delta":
        with pytest.raises(OutputError, match=r"record\.total"):
            lake.check(documents_schema(wide))
        return
    lake.upsert(lake.documents("b", [row("y", {"total": Decimal(10**17)})], wide))
    assert [one["record"]["total"] for one in lake.rows()] == [1, 10**17]


def test_slices_of_lists_conform() -> None:
    """Batches of a reader may be slices of longer arrays."""
    wanted = pa.schema([("a", pa.list_(pa.struct([("x", pa.int64()), ("y", pa.int64())])))])
    batch = pa.RecordBatch.from_pylist(
        [{"a": [{"x": 1}]}, {"a": None}, {"a": [{"x": 2}, None]}],
        schema=pa.schema([("a", pa.list_(pa.struct([("x", pa.int32())])))]),
    )
    found = conform(batch.slice(1), wanted)
    found.validate(full=True)
    assert found.to_pylist() == [{"a": None}, {"a": [{"x": 2, "y": None}, None]}]


def test_delta_refuses_names_that_it_cannot_hold(tmp_path: Path) -> None:
    odd = documents_schema(pa.struct([("unit price", pa.int64())]))
    with pytest.raises(OutputError, match="no name like 'unit price'"):
        Lake(tmp_path, "delta").check(odd)
    lake = Lake(tmp_path, "iceberg")
    lake.upsert(lake.documents("a", [row("x", {"unit price": 1})], odd.field("record").type))
    assert lake.rows()[0]["record"] == {"unit price": 1}


def test_columns_carry_their_descriptions(lake: Lake) -> None:
    lake.upsert(make_documents(lake.layout, "a", 1))
    texts = proof.descriptions(lake.format, lake.folder)
    assert texts == {one.name: one.metadata[b"description"].decode() for one in SCHEMA}
