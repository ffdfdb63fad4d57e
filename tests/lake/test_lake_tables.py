"""Documents in Iceberg and Delta tables: what a snapshot holds, and what leaves it alone."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lake_tables as proof
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from lake_output import OPEN, Lake, counts, row
from lake_piles import SCHEMA, digest_of, make_documents, uri_of

from pipeline.errors import ConservationError, RunError
from pipeline.lake import upsert as upserting
from pipeline.lake.delta import DeltaLakeTable
from pipeline.lake.iceberg import IcebergTable
from pipeline.lake.lake_table import RUN
from pipeline.lake.parquet import write_tables
from pipeline.lake.tables import DIGEST
from pipeline.lake.upsert import Documents


@pytest.fixture(params=["iceberg", "delta"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake(tmp_path, request.param)


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
    assert [told[RUN] for told in table.told() if RUN in told] == ["r2", "r1"]
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


def test_killed_upserts_leave_the_table_as_before_or_after(tmp_path: Path) -> None:
    proof.prepare(tmp_path, rounds=20, n_rows=20)
    command = [sys.executable, proof.__file__, "--child", "iceberg+delta", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        done = int(process.stdout.readline())
        time.sleep(random.Random(1).uniform(0.05, 0.3))
        process.kill()
        done = max([done, *(int(line) for line in process.stdout)])
    for name in proof.FORMATS:
        assert proof.state_of(name, tmp_path) in (done, done + 1)
        Lake(tmp_path, name).upsert(proof.documents(tmp_path, 19))
        assert proof.state_of(name, tmp_path) == 19


def test_after_a_commit_others_may_commit_as_often_as_they_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path, "delta")
    lake.upsert(make_documents(lake.layout, "a", 2))
    write = DeltaTable.create_write_transaction

    def overtaken(self: DeltaTable, *arguments: Any, **more: Any) -> None:
        write(self, *arguments, **more)
        for _ in range(51):
            write(self, [], "append", self.schema())

    monkeypatch.setattr(DeltaTable, "create_write_transaction", overtaken)
    assert lake.upsert(make_documents(lake.layout, "b", 3)).snapshot == "2"
    assert len(lake.rows()) == 3


def test_files_that_the_table_names_are_never_discarded(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = OPEN_KINDS[lake.format]
    commit = kind.commit  # type: ignore[attr-defined]

    def denied(self: Any, *arguments: Any) -> str:
        commit(self, *arguments)
        raise ConservationError("it says that it failed")

    monkeypatch.setattr(kind, "commit", denied)
    with pytest.raises(ConservationError):
        lake.upsert(make_documents(lake.layout, "a", 2))
    assert len(lake.rows()) == 2


def test_an_output_older_than_digests_is_brought_into_a_table(tmp_path: Path) -> None:
    lake = Lake(tmp_path, "delta")
    rows = lake.documents("a", [row("x"), row("y")])
    old = SCHEMA.remove(SCHEMA.get_field_index(DIGEST))
    table = pa.Table.from_batches(rows.rows(rows.digests == rows.digests)).drop_columns([DIGEST])
    files = write_tables(lake.layout, "documents/old", old, [table.cast(old)])
    documents = Documents.of(lake.layout, files, SCHEMA)
    assert lake.upsert(documents).inserted == 2
    assert lake.upsert(rows).unchanged == 2


def test_a_key_doubled_256_times_is_mended(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = lake.documents("a", [row("x")])
    with monkeypatch.context() as patch:
        patch.setattr(upserting, "_require", lambda *_: None)
        rows = Documents.rows
        patch.setattr(Documents, "rows", lambda *arguments: [*rows(*arguments)] * 256)
        lake.upsert(documents)
    assert len(lake.rows()) == 256
    assert lake.upsert(documents).rows == 1
