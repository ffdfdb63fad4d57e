from __future__ import annotations

import datetime as dt
from dataclasses import replace
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.lake import parquet
from pipeline.lake.keys import KeySet, as_array, document_key
from pipeline.lake.parquet import compact, count_rows, count_values, write_table, write_tables
from pipeline.lake.tables import pages_schema
from pipeline.lake.types import arrow_type
from pipeline.records import FailureKind

INVOICE = arrow_type(
    {
        "properties": {
            "total": {"type": "number", "x-arrow": "decimal128(12, 2)"},
            "date": {"type": "string", "format": "date"},
            "seller": {"properties": {"name": {"type": "string"}}},
            "items": {
                "type": "array",
                "items": {"properties": {"sku": {"type": "string"}, "qty": {"type": "integer"}}},
            },
        }
    }
)


def file_path(output, name: str) -> str:
    return f"{output.layout.root}/{name}"


def rows(output, files: list[str]) -> dict[tuple[str, int], object]:
    table = pa.concat_tables(pq.read_table(file_path(output, name)) for name in files)
    found = [
        ((row["document_id"], row["page_numbers"][0]), row["record"] and row["record"]["total"])
        for row in table.to_pylist()
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def compacted(output, documents: str = "ab") -> list[str]:
    files = output.ledger.page_files("f1")
    live = KeySet(as_array(map(document_key, documents)))
    compact_files, n_kept = compact(
        output.layout, files, pages_schema(output.record_type), "pages/r9", live
    )
    assert count_rows(output.layout, compact_files) == n_kept
    return compact_files


def test_nested_records_are_read_by_duckdb(output):
    lake = replace(output, record_type=INVOICE)
    record = {
        "total": Decimal("12.30"),
        "date": "2024-02-29",
        "seller": {"name": "Ünal"},
        "items": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": None}],
    }
    lake.write([lake.page("d", 1, record), lake.page("d", 2, fails=FailureKind.TRUNCATED)])
    glob = file_path(output, "pages/*.parquet")
    found = duckdb.sql(
        f"select record.total, record.date, record.seller.name from '{glob}' where state = 'ok'"
    ).fetchall()
    assert found == [(Decimal("12.30"), dt.date(2024, 2, 29), "Ünal")]
    items = duckdb.sql(f"select unnest(record.items, recursive := true) from '{glob}'").fetchall()
    assert items == [("a", 1), ("b", None)]


def test_files_are_zstd_with_statistics_and_a_bloom_filter(output):
    commit = output.write([output.page(f"d{n}", 1, {"total": n}) for n in range(50)])
    column = pq.read_metadata(file_path(output, commit.file)).row_group(0).column(0)
    assert column.path_in_schema == "document_id"
    assert column.compression == "ZSTD"
    assert column.statistics.min == "d0"
    assert 0 < column.bloom_filter_length < 1024
    path = file_path(output, commit.file)
    found = duckdb.sql(f"select record.total from '{path}' where document_id = 'd7'").fetchall()
    assert found == [(7,)]


def test_a_table_is_cut_into_row_groups(output):
    table = pa.table({"document_id": [f"{n:05}" for n in range(45_000)]})
    write_table(output.layout, "pages/x.parquet", table)
    metadata = pq.read_metadata(file_path(output, "pages/x.parquet"))
    groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert groups == [20_000, 20_000, 5_000]


def test_a_stream_of_tables_is_cut_into_files(output, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 100)
    monkeypatch.setattr(parquet, "FILE_BYTES", 1000)
    tables = [pa.table({"document_id": [f"{n}-{i}" for i in range(30)]}) for n in range(40)]
    files = write_tables(output.layout, "documents/x", tables[0].schema, tables)
    assert files == [f"documents/x-{n:05}.parquet" for n in range(len(files))]
    assert len(files) > 2
    assert count_rows(output.layout, files) == 1200
    read = pa.concat_tables(pq.read_table(file_path(output, name)) for name in files)
    assert read.equals(pa.concat_tables(tables))


def test_every_table_is_measured_once(output, monkeypatch, sizes):
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 1500)
    n_tables = 4000
    table = pa.table({"document_id": ["a", "b"]})
    tables = (sizes.of(table) for _ in range(n_tables))
    (file,) = write_tables(output.layout, "documents/x", table.schema, tables)
    assert sizes.asked == {"num_rows": n_tables, "nbytes": n_tables}
    assert count_rows(output.layout, [file]) == 2 * n_tables


def test_no_rows_make_no_file(output):
    schema = pa.schema({"document_id": pa.string()})
    assert write_tables(output.layout, "documents/x", schema, [schema.empty_table()]) == []
    assert output.layout.list("documents") == []


def test_a_stream_that_breaks_leaves_no_unfinished_file(output):
    def tables():
        yield pa.table({"document_id": ["a"] * 20_000})
        raise RuntimeError("broken")

    schema = pa.schema({"document_id": pa.string()})
    with pytest.raises(RuntimeError, match="broken"):
        write_tables(output.layout, "documents/x", schema, tables())
    assert output.layout.list("documents") == []


def test_compaction_keeps_the_newest_row_of_every_key(output):
    output.write([output.page("a", 1, {"total": 1}), output.page("a", 2, {"total": 2})])
    output.write([output.page("b", 1, {"total": 3})])
    output.write([output.page("a", 2, {"total": 20})], run="r2")
    output.write([output.page("b", 1, {"total": 30})], run="r0")  # the name does not matter
    files = compacted(output)
    assert len(files) == 1
    assert rows(output, files) == {("a", 1): 1, ("a", 2): 20, ("b", 1): 30}


def test_compaction_drops_the_rows_of_other_documents(output):
    output.write([output.page("a", 1, {"total": 1}), output.page("b", 1, {"total": 2})])
    assert rows(output, compacted(output, documents="b")) == {("b", 1): 2}
    assert compacted(output, documents="") == []


def test_compaction_depends_on_its_input_only_and_never_writes_over_it(output):
    output.write([output.page("a", 1, {"total": 1})])
    output.write([output.page("b", 1, {"total": 1})])
    before = set(output.layout.list("pages"))
    files = compacted(output)
    assert files == compacted(output)
    assert not before & set(files)


def test_a_compacted_file_is_left_alone(output):
    output.write([output.page("a", 1, {"total": 1})])
    assert compacted(output) == output.ledger.page_files()


def test_a_large_file_without_superseded_rows_is_left_alone(output, monkeypatch):
    monkeypatch.setattr(parquet, "SMALL_FILE_BYTES", 1)
    clean = output.write([output.page("a", 1, {"total": 1})])
    output.write([output.page("b", 1, {"total": 1}), output.page("b", 2, {"total": 2})])
    newer = output.write([output.page("b", 1, {"total": 10})])
    files = compacted(output)
    assert files[:2] == [clean.file, newer.file]
    assert rows(output, files) == {("a", 1): 1, ("b", 1): 10, ("b", 2): 2}


def test_values_are_counted_over_files(output):
    output.write([output.page("a", n, {"total": 1}) for n in (1, 2)])
    output.write([output.page("a", 3, fails=FailureKind.RENDER_CRASH)])
    files = output.ledger.page_files()
    assert count_values(output.layout, files, "state") == {"ok": 2, "failed": 1}
    assert count_values(output.layout, files, "failure_kind") == {"render_crash": 1}
