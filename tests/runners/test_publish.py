"""Whole runs into lake tables: on a disk, in an object store, and refused before any work."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.transaction import AddAction
from pyiceberg.catalog import load_catalog
from rich.console import Console
from s3_server import KEYS, S3Server

from pipeline import cli
from pipeline.errors import OutputError, RunError
from pipeline.job import Job
from pipeline.lake.delta import DeltaLakeTable
from pipeline.lake.iceberg import IcebergTable, embedded_catalog
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Ledger
from pipeline.lake.publish import check
from pipeline.lake.stores import Stores
from pipeline.lake.upsert import Upserted
from pipeline.runners import run as running
from pipeline.runners.summary import Summary
from pipeline.schema import load_schema

MakeJob = Callable[..., Job]
RunJob = Callable[..., Summary]
FAKE = {"model": {"family": "fake", "name": "fake?edge=56"}, "task": "ocr", "schema": "text.v1"}
GONE = r"delta table is not up to date \(the store is gone\)"
COLUMNS = "uri, schema_id, row_digest, run_id"


@pytest.fixture
def pile(demo: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for path in sorted((demo / "documents").glob("image-0*"))[:2]:
        shutil.copy(path, folder)
    return folder


def counts(summary: Summary) -> tuple[int, int, int, bool]:
    done = summary.table
    assert isinstance(done, Upserted)
    return done.inserted, done.replaced, done.unchanged, done.committed


@contextmanager
def store_gone() -> Iterator[None]:
    """Let no table be written."""

    def unreachable(*_: Any) -> None:
        raise OSError("the store is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.lake.publish.upsert", unreachable)
        yield


def sql(rows: Any, files: list[str]) -> list[tuple[Any, ...]]:
    return rows(f"SELECT {COLUMNS} FROM read_parquet({files}) ORDER BY uri").fetchall()


def test_runs_keep_an_iceberg_table_up_to_date(
    tmp_path: Path, pile: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    output = {"uri": str(tmp_path / "out"), "format": "iceberg"}
    job = make_job([pile], **FAKE, output=output, name="My receipts!")
    first = run_job(job)
    assert counts(first) == (2, 0, 0, True)
    assert json.loads(first.to_json())["table"]["snapshot"] == first.table.snapshot  # type: ignore[union-attr]
    assert counts(run_job(job)) == (0, 0, 2, False)
    fresh = run_job(job, fresh=True)
    # The salt of --fresh makes other rows.
    assert counts(fresh) == (0, 2, 0, True)
    with embedded_catalog(tmp_path / "out" / "iceberg") as catalog:
        table = catalog.load_table("pagelake.my_receipts")
        told = table.current_snapshot().summary.additional_properties
        files = [task.file.file_path for task in table.scan().plan_files()]
    assert told["pagelake.run_id"] == fresh.run_id
    assert (told["pagelake.replaced"], told["pagelake.documents.ok"]) == ("2", "2")
    own = [str(path) for path in (tmp_path / "out" / "documents").glob("*.parquet")]
    assert sql(duckdb.sql, files) == sql(duckdb.sql, own)
    _warns_of_another_schema_of_its_name(job)


def _warns_of_another_schema_of_its_name(job: Job) -> None:
    layout, schema = Layout.open(job.output.uri), load_schema("text.v1")
    assert check(job, layout, schema.id, schema.document) == ()
    assert check(job, layout, "text.v2", {**schema.document, "title": "Newer"}) == ()
    [warning] = check(job, layout, schema.id, {**schema.document, "title": "Newer"})
    assert "has rows of another schema named text.v1" in warning


def test_a_run_that_died_before_the_table_is_made_up_for_by_the_next(
    tmp_path: Path, pile: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    output = {"uri": str(tmp_path / "out"), "format": "delta"}
    job = make_job([pile], **FAKE, output=output)

    with store_gone(), pytest.raises(RunError, match=GONE):
        run_job(job)
    assert len(Ledger(Layout.open(job.output.uri)).document_files()) == 1
    again = run_job(job)
    assert again.done.pages == 0
    assert counts(again) == (2, 0, 0, True)
    assert DeltaTable(str(tmp_path / "out" / "delta")).count() == 2
    _warns_of_another_schema_of_its_name(job)


def test_an_ingest_of_nothing_brings_a_table_up_to_date_and_then_leaves_it(
    tmp_path: Path,
    pile: Path,
    make_job: MakeJob,
    run_job: RunJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = str(tmp_path / "table")
    ours, theirs = (
        make_job([pile], **FAKE, output={"uri": str(tmp_path / n), "format": "delta", "table": uri})
        for n in ("ours", "theirs")
    )
    with store_gone(), pytest.raises(RunError, match=GONE):
        run_job(ours)
    made_up = run_job(ours, incremental=True)
    assert (made_up.run_id, counts(made_up)) == (None, (2, 0, 0, True))
    said = io.StringIO()
    made_up.print(Console(file=said, width=1000))
    assert f"the table lacked what an earlier run made: {uri}: 2 inserted" in said.getvalue()
    run_job(theirs, fresh=True)  # other rows of the same documents
    monkeypatch.setattr("pipeline.lake.publish.upsert", lambda *_: pytest.fail("they compare"))
    assert [run_job(job, incremental=True).table for job in (ours, theirs)] == [None, None]
    assert DeltaTable(uri).version() == 2


def test_a_table_that_cannot_hold_the_schema_is_refused_before_a_page_is_read(
    tmp_path: Path, pile: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "table")
    odd = pa.schema([("uri", pa.string()), ("record", pa.struct([("text", pa.int64())]))])
    DeltaTable.create(uri, schema=odd)
    output = {"uri": str(tmp_path / "out"), "format": "delta", "table": uri}
    monkeypatch.setattr(running, "plan_documents", lambda *_: pytest.fail("it has begun"))
    with pytest.raises(OutputError, match=r"record\.text is int64 in the table and string in"):
        run_job(make_job([pile], **FAKE, output=output))


def look(job: Job) -> None:
    schema = load_schema("text.v1")
    check(job, Layout.open(job.output.uri), schema.id, schema.document)


def test_a_passing_fault_of_a_store_is_no_mistake_of_the_user(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job([tmp_path], **FAKE, output={"uri": str(tmp_path / "out"), "format": "delta"})

    def fails(error: Exception) -> None:
        def load(_: DeltaLakeTable) -> None:
            raise error

        monkeypatch.setattr(DeltaLakeTable, "load", load)

    fails(OSError("S3 error\n \x1b[31m↳\x1b[0m no answer"))
    with pytest.raises(RunError, match=r"cannot be reached \(S3 error ↳ no answer\); run again"):
        look(job)
    fails(OSError("403 Forbidden <Error><Code>InvalidAccessKeyId</Code><Message>no</Message>"))
    with pytest.raises(OutputError, match=r"its store answers InvalidAccessKeyId\); check output"):
        look(job)
    fails(OSError("503 <Error><Code>SlowDown</Code><Message>no</Message>"))
    with pytest.raises(RunError, match=r"its store answers SlowDown\); run again"):
        look(job)
    fails(PermissionError("denied"))
    with pytest.raises(OutputError, match=r"denied\); check output\.table"):
        look(job)


def test_files_that_cannot_be_read_are_refused_before_any_work(
    tmp_path: Path, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = {"uri": str(tmp_path / "out"), "format": "iceberg"}
    job = make_job([tmp_path], **FAKE, output=output)

    def deleted(_: IcebergTable) -> None:
        raise OutputError("it has row-level deletes")

    monkeypatch.setattr(IcebergTable, "files", deleted)
    with pytest.raises(OutputError, match="row-level deletes"):
        look(job)


def test_files_that_a_delta_log_does_not_count_are_counted(tmp_path: Path) -> None:
    schema = pa.schema([("uri", pa.string())])
    made = DeltaTable.create(str(tmp_path), schema=schema)
    pq.write_table(pa.table({"uri": ["a", "b"]}), tmp_path / "x.parquet")
    size = (tmp_path / "x.parquet").stat().st_size
    action = AddAction("x.parquet", size, {}, 1, True, "{}")
    made.create_write_transaction([action], "append", made.schema())
    table = DeltaLakeTable(str(tmp_path), Stores())
    table.load()
    assert [file.n_rows for file in table.files()] == [2]


def test_a_catalog_that_nobody_knows_is_one_line(
    tmp_path: Path,
    pile: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        f"input: {{paths: [{pile}]}}\ntask: ocr\nmodel: {{family: fake, name: 'fake?edge=56'}}\n"
        f"output: {{uri: {tmp_path / 'out'}, format: iceberg, catalog: nosuch, table: a.b}}\n"
    )
    monkeypatch.setattr("sys.argv", ["pagelake", "run", str(path), "--runner", "local"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "pyiceberg knows no catalog 'nosuch'" in capsys.readouterr().err


def test_a_delta_table_in_a_store_that_the_environment_names(
    s3: S3Server, pile: Path, make_job: MakeJob, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.make_bucket("delta-tables")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    output = {"uri": "s3://delta-tables/out", "format": "delta"}
    job = make_job([pile], **FAKE, output=output)
    assert counts(run_job(job)) == (2, 0, 0, True)
    assert counts(run_job(job, fresh=True)) == (0, 2, 0, True)
    options = {"aws_endpoint_url": s3.endpoint, "aws_region": "us-east-1", "allow_http": "true"}
    table = DeltaTable("s3://delta-tables/out/delta", storage_options=options)
    assert (table.count(), table.version()) == (2, 2)
    assert table.history(1)[0]["pagelake.replaced"] == "2"


def test_what_a_table_s_store_will_never_give_is_the_users_mistake(
    tmp_path: Path, s3: S3Server, make_job: MakeJob
) -> None:
    output = {"uri": str(tmp_path / "out"), "format": "delta", "table": "s3://no-such-lake/x"}
    with pytest.raises(OutputError) as caught:
        look(make_job([tmp_path], **FAKE, output=output, stores=s3.stores))
    assert str(caught.value) == (
        "output.format delta: the table cannot be reached (its store answers NoSuchBucket); check "
        "output.table, output.catalog, stores and the credentials"
    )


def test_a_delta_table_in_an_output_whose_uri_has_a_query(
    s3: S3Server, pile: Path, make_job: MakeJob, run_job: RunJob
) -> None:
    s3.make_bucket("delta-queries")
    host = s3.endpoint.removeprefix("http://")
    query = f"region=us-east-1&endpoint_override={host}&scheme=http"
    output = {"uri": f"s3://delta-queries/out?{query}", "format": "delta"}
    assert counts(run_job(make_job([pile], **FAKE, output=output))) == (2, 0, 0, True)
    options = {"aws_endpoint_url": s3.endpoint, "aws_region": "us-east-1", "allow_http": "true"}
    assert DeltaTable("s3://delta-queries/out/delta", storage_options=options).count() == 2


def test_an_iceberg_table_of_a_named_catalog_in_a_store(
    s3: S3Server,
    tmp_path: Path,
    pile: Path,
    make_job: MakeJob,
    run_job: RunJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3.make_bucket("warehouse")
    configured = {"uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": "s3://warehouse/lake"}
    for key, value in configured.items():
        monkeypatch.setenv(f"PYICEBERG_CATALOG__PROD__{key.upper()}", value)
    output = {"uri": "s3://warehouse/out", "format": "iceberg", "catalog": "prod", "table": "a.b"}
    job = make_job([pile], **FAKE, output=output, stores=s3.stores)
    assert counts(run_job(job)) == (2, 0, 0, True)
    assert counts(run_job(job)) == (0, 0, 2, False)
    settings = {"s3.endpoint": s3.endpoint, "s3.region": "us-east-1"}
    settings |= {"s3.access-key-id": KEYS["AWS_ACCESS_KEY_ID"]}
    settings |= {"s3.secret-access-key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    with load_catalog("prod", **configured, **settings) as catalog:
        assert catalog.load_table("a.b").scan().count() == 2
