from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.lake import buckets
from pipeline.lake.buckets import Buckets, bucket_count

SCHEMA = pa.schema({"document_id": pa.string(), "n": pa.int64()})


@pytest.mark.parametrize("spill_rows", [7, 1 << 16])
def test_documents_stay_together_and_rows_in_order(tmp_path, monkeypatch, spill_rows):
    monkeypatch.setattr(buckets, "_SPILL_ROWS", spill_rows)
    spilled = Buckets(tmp_path, SCHEMA, 5)
    with spilled:
        for n in range(200):
            spilled.write(pa.table([[f"d{n % 20}"], [n]], schema=SCHEMA))
    parts = [table.to_pylist() for table in spilled]
    assert len(parts) == 5
    assert sorted(row["n"] for part in parts for row in part) == list(range(200))
    for document in range(20):
        held = [
            [row["n"] for row in part if row["document_id"] == f"d{document}"] for part in parts
        ]
        assert [rows for rows in held if rows] == [list(range(document, 200, 20))]


def test_every_table_is_measured_once(tmp_path, monkeypatch, sizes):
    monkeypatch.setattr(buckets, "_SPILL_ROWS", 1500)
    n_tables = 4000
    spilled = Buckets(tmp_path, SCHEMA, 3)
    with spilled:
        for n in range(n_tables):
            spilled.write(sizes.of(pa.table([[f"d{n}"], [n]], schema=SCHEMA)))
    assert sizes.asked == {"num_rows": n_tables, "nbytes": n_tables}
    assert sum(table.num_rows for table in spilled) == n_tables


def test_no_rows_are_empty_buckets(tmp_path):
    spilled = Buckets(tmp_path, SCHEMA, 2)
    with spilled:
        pass
    assert [table.num_rows for table in spilled] == [0, 0]


def test_buckets_grow_with_the_rows_up_to_a_limit():
    assert [bucket_count(n) for n in (0, 99_999, 100_000, 10**9)] == [1, 1, 2, 200]
