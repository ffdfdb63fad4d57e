"""Documents in Iceberg and Delta tables: what a snapshot holds, and what leaves it alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import lake_tables as proof
import pyarrow as pa
import pytest
from lake_piles import RECORD, SCHEMA, digest_of, make_documents, uri_of

from pipeline.errors import ConservationError, OutputError, RunError
from pipeline.lake import upsert as upserting
from pipeline.lake.columns import conform
from pipeline.lake.delta import DeltaLakeTable
from pipeline.lake.iceberg import IcebergTable, embedded_catalog
from pipeline.lake.lake_table import RUN, LakeTable
from pipeline.lake.layout import Layout
from pipeline.lake.parquet import write_tables
from pipeline.lake.stores import Stores
from pipeline.lake.tables import documents_schema, with_digests
from pipeline.lake.upsert import Documents, Upserted, load_checked, upsert

Rows = list[dict[str, Any]]
OPEN: dict[str, Callable[[Path], LakeTable]] = {
    "iceberg": lambda folder: IcebergTable(embedded_catalog(folder / "iceberg"), "lake.docs"),
    "delta": lambda folder: DeltaLakeTable(str(folder / "delta"), Stores()),
}


@dataclass(frozen=True)
class Lake:
    """A table, and an output whose documents go into it."""

    folder: Path
    format: str

    @property
    def layout(self) -> Layout:
        return Layout.open(str(self.folder / "out"))

    def upsert(self, documents: Documents, **properties: str) -> Upserted:
        table = OPEN[self.format](self.folder)
        try:
            return upsert(table, documents, lambda _: properties)
        finally:
            table.close()

    def documents(self, name: str, rows: Rows, record: pa.DataType = RECORD) -> Documents:
        """Write rows as an output's documents; uri and record are what they name."""
        schema = documents_schema(record)
        table = with_digests(pa.Table.from_pylist(rows, schema=schema))
        files = write_tables(self.layout, f"documents/{name}", schema, [table])
        return Documents.of(self.layout, files, schema)

    def rows(self) -> Rows:
        """Read the table as a stranger would: by what the format's own library lists."""
        files = proof.data_files(self.format, self.folder)
        found = duckdb.read_parquet(files, union_by_name=True).to_arrow_table()
        rows: Rows = found.to_pylist(maps_as_pydicts="strict")
        return sorted(rows, key=lambda row: (row["uri"], row["schema_id"]))

    def digests(self) -> dict[str, str]:
        return {row["uri"]: row["row_digest"] for row in self.rows()}

    def check(self, documents: pa.Schema) -> None:
        table = OPEN[self.format](self.folder)
        try:
            load_checked(table, documents)
        finally:
            table.close()


@pytest.fixture(params=["iceberg", "delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(tmp_path, request.param)


def row(uri: str, record: Any = None, schema_id: str = "s.v1", **more: Any) -> dict[str, Any]:
    return {"uri": uri, "schema_id": schema_id, "record": record, **more}


def counts(done: Upserted) -> tuple[int, int, int, int]:
    return done.inserted, done.replaced, done.unchanged, done.rows


def test_the_same_documents_again_make_no_snapshot(lake: Lake) -> None:
    documents = make_documents(lake.layout, "a", 50)
    first = lake.upsert(documents)
    again = lake.upsert(make_documents(lake.layout, "b", 50))
    assert (counts(first), first.committed) == ((50, 0, 0, 50), True)
    assert (counts(again), again.committed) == ((0, 0, 50, 50), False)
    assert again.snapshot == first.snapshot


def test_a_table_tells_which_runs_made_its_snapshots(lake: Lake) -> None:
    lake.upsert(make_documents(lake.layout, "a", 2), **{RUN: "r1"})
    lake.upsert(make_documents(lake.layout, "b", 2))
    lake.upsert(make_documents(lake.layout, "c", 3), **{RUN: "r2"})
    table = OPEN[lake.format](lake.folder)
    assert table.load() is not None
    assert table.runs() == {"r1", "r2"}
    table.close()


def test_a_changed_document_takes_the_place_of_its_row(lake: Lake) -> None:
    lake.upsert(make_documents(lake.layout, "a", 10))
    done = lake.upsert(make_documents(lake.layout, "b", 12, lambda n: int(n in (3, 7))))
    assert counts(done) == (2, 2, 8, 12)
    assert lake.digests() == {uri_of(n): digest_of(n, int(n in (3, 7))) for n in range(12)}


def test_rows_of_other_schemas_and_documents_stay(lake: Lake) -> None:
    lake.upsert(lake.documents("a", [row("x"), row("y"), row("z")]))
    done = lake.upsert(lake.documents("b", [row("x", schema_id="t.v1"), row("y", state="ok")]))
    assert counts(done) == (1, 1, 0, 4)
    found = [(one["uri"], one["schema_id"], one["state"]) for one in lake.rows()]
    assert found == [
        ("x", "s.v1", None),
        ("x", "t.v1", None),
        ("y", "s.v1", "ok"),
        ("z", "s.v1", None),
    ]


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


def test_who_is_overtaken_compares_again(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upserting, "_PAUSE_S", 0.001)
    lake.upsert(make_documents(lake.layout, "a", 5))
    theirs = make_documents(lake.layout, "theirs", 8, lambda n: int(n == 1))
    ours = make_documents(lake.layout, "ours", 10, lambda n: int(n in (1, 2)))
    overtake(monkeypatch, lake, iter([theirs]))
    done = lake.upsert(ours)
    assert counts(done) == (2, 1, 7, 10)
    assert lake.digests() == {uri_of(n): digest_of(n, int(n in (1, 2))) for n in range(10)}


def test_who_is_overtaken_without_end_gives_up(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upserting, "_PAUSE_S", 0.001)
    monkeypatch.setattr(upserting, "_ATTEMPTS", 3)
    theirs = [make_documents(lake.layout, f"{n}-", 2 + n) for n in range(4)]
    lake.upsert(theirs[0])
    overtake(monkeypatch, lake, iter(theirs[1:]))
    with pytest.raises(RunError, match="others committed to it 3 times"):
        lake.upsert(make_documents(lake.layout, "ours", 50))
    assert len(lake.rows()) == 5
    files = {Path(path).name for path in proof.data_files(lake.format, lake.folder)}
    stored = {path.name for path in lake.folder.glob("[di]*/**/*.parquet")}
    assert stored == files  # nothing staged stays behind


def overtake(monkeypatch: pytest.MonkeyPatch, lake: Lake, others: Iterator[Documents]) -> None:
    """Let somebody else commit whenever files are staged."""
    kind = {"iceberg": IcebergTable, "delta": DeltaLakeTable}[lake.format]
    commit = kind.commit

    def overtaken(self: Any, *arguments: Any) -> str:
        if (documents := next(others, None)) is not None:
            with monkeypatch.context() as patch:
                patch.setattr(kind, "commit", commit)
                lake.upsert(documents)
        return commit(self, *arguments)

    monkeypatch.setattr(kind, "commit", overtaken)


def test_a_key_that_somebody_else_doubled_has_one_row_again(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = make_documents(lake.layout, "a", 4)
    lake.upsert(documents)
    with monkeypatch.context() as patch:  # a writer that looks for nothing
        patch.setattr(OPEN_KINDS[lake.format], "files", lambda _: [])
        patch.setattr(upserting, "_require", lambda *_: None)
        lake.upsert(documents)
    assert len(lake.rows()) == 8
    assert lake.upsert(documents).rows == 4
    assert lake.digests() == {uri_of(n): digest_of(n, 0) for n in range(4)}


OPEN_KINDS: Mapping[str, type] = {"iceberg": IcebergTable, "delta": DeltaLakeTable}


def test_many_small_files_become_one(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upserting, "_SMALL_FILES", 2)
    for n in range(1, 4):
        lake.upsert(make_documents(lake.layout, str(n), n))
    assert len(proof.data_files(lake.format, lake.folder)) == 3
    lake.upsert(make_documents(lake.layout, "x", 4))
    assert len(proof.data_files(lake.format, lake.folder)) == 1
    assert lake.digests() == {uri_of(n): digest_of(n, 0) for n in range(4)}


def test_rows_lost_on_the_way_are_never_committed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.upsert(make_documents(lake.layout, "a", 4))
    rows = Documents.rows
    monkeypatch.setattr(Documents, "rows", lambda *arguments: list(rows(*arguments))[:-1])
    with pytest.raises(ConservationError, match="the staged files must hold"):
        lake.upsert(make_documents(lake.layout, "b", 5, lambda _: 1))
    assert lake.digests() == {uri_of(n): digest_of(n, 0) for n in range(4)}


def test_two_rows_of_one_document_are_refused(lake: Lake) -> None:
    with pytest.raises(ConservationError, match="1 documents are there more than once"):
        lake.documents("a", [row("x"), row("x")])


def test_killed_upserts_leave_the_table_as_before_or_after(lake: Lake) -> None:
    proof.prepare(lake.folder, rounds=30, n_rows=100)
    command = [sys.executable, proof.__file__, "--child", lake.format, str(lake.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done = int(process.stdout.readline())
        time.sleep(random.Random(1).uniform(0.05, 0.3))
        process.kill()
        done = max([done, *(int(line) for line in process.stdout)])
    assert proof.state_of(lake.format, lake.folder) in (done, done + 1)
    lake.upsert(proof.documents(lake.folder, 29))
    assert proof.state_of(lake.format, lake.folder) == 29


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
