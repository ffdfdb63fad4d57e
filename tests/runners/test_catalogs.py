"""Runs into tables of named Iceberg catalogs, of any warehouse, with outputs on a disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.schema import Schema
from pyiceberg.types import NestedField, StringType
from s3_server import KEYS, S3Server

from pipeline.errors import OutputError, RunError
from pipeline.job import Job
from pipeline.lake.layout import Layout
from pipeline.lake.publish import check
from pipeline.runners.summary import Summary
from pipeline.schema import load_schema

MakeJob = Callable[..., Job]
RunJob = Callable[..., Summary]
FAKE = {"model": {"family": "fake", "name": "fake?edge=56"}, "task": "ocr", "schema": "text.v1"}


@pytest.fixture
def scan(demo: Path) -> Path:
    return sorted((demo / "documents").glob("image-0*"))[0]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Describe the catalog `prod` in the environment, and return what it is described by."""

    def go(**properties: str) -> dict[str, str]:
        found = {"uri": f"sqlite:///{tmp_path}/catalog.db", **properties}
        for key, value in found.items():
            monkeypatch.setenv(f"PYICEBERG_CATALOG__PROD__{key.upper()}", value)
        return found

    return go


def into(folder: Path) -> dict[str, str]:
    """An output on a disk, and a table of the catalog `prod`."""
    return {"uri": str(folder / "out"), "format": "iceberg", "catalog": "prod", "table": "a.b"}


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_warehouse_on_a_disk_serves_an_output_on_a_disk(
    scheme: str,
    tmp_path: Path,
    scan: Path,
    configure: Callable[..., dict[str, str]],
    make_job: MakeJob,
    run_job: RunJob,
) -> None:
    configured = configure(warehouse=f"{scheme}{tmp_path}/warehouse")
    job = make_job([scan], **FAKE, output=into(tmp_path))
    assert run_job(job).table.inserted == 1  # type: ignore[union-attr]
    with load_catalog("prod", **configured) as catalog:
        assert catalog.load_table("a.b").scan().count() == 1


@pytest.mark.parametrize("described", [{}, {"warehouse": "analytics"}])
def test_a_store_that_only_the_catalog_knows_is_reached_as_the_job_says(
    described: dict[str, str],
    s3: S3Server,
    tmp_path: Path,
    scan: Path,
    configure: Callable[..., dict[str, str]],
    make_job: MakeJob,
    run_job: RunJob,
) -> None:
    """As of a REST catalog, whose warehouse is a name."""
    s3.make_bucket("known-to-the-catalog")
    settings = {"s3.endpoint": s3.endpoint, "s3.region": "us-east-1"}
    settings |= {"s3.access-key-id": KEYS["AWS_ACCESS_KEY_ID"]}
    settings |= {"s3.secret-access-key": KEYS["AWS_SECRET_ACCESS_KEY"]}
    with load_catalog("prod", **configure(**described), **settings) as catalog:
        catalog.create_namespace_if_not_exists("a")
        place = f"s3://known-to-the-catalog/{described.get('warehouse', 'none')}"
        uri = Schema(NestedField(1, "uri", StringType()))
        catalog.create_table("a.b", schema=uri, location=place)
        job = make_job([scan], **FAKE, output=into(tmp_path), stores=s3.stores)
        assert run_job(job).table.inserted == 1  # type: ignore[union-attr]
        assert catalog.load_table("a.b").scan().count() == 1


@pytest.mark.parametrize("uri", ["mysql+pymysql://user:S3CRET@db/x", "user:S3CRET@db/x"])
def test_a_catalogs_password_is_not_shown_before_any_work(
    uri: str, tmp_path: Path, configure: Callable[..., dict[str, str]], make_job: MakeJob
) -> None:
    configure(uri=uri)
    schema = load_schema("text.v1")
    job = make_job([tmp_path], **FAKE, output=into(tmp_path))
    with pytest.raises(OutputError, match=r"not infer the catalog type from the uri: \.\.\.\)"):
        check(job, Layout.open(job.output.uri), schema.id, schema.document)


def test_a_catalogs_password_is_not_shown_once_the_work_is_done(
    tmp_path: Path,
    scan: Path,
    configure: Callable[..., dict[str, str]],
    make_job: MakeJob,
    run_job: RunJob,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configure(warehouse=f"{tmp_path}/warehouse")

    def refuses(*_: Any) -> None:
        raise OSError("cannot connect: postgresql://user:S3CRET@db/x {'credential': 'id:S3CRET'}")

    monkeypatch.setattr("pipeline.lake.publish.upsert", refuses)
    with pytest.raises(RunError, match="is not up to date") as raised:
        run_job(make_job([scan], **FAKE, output=into(tmp_path)))
    assert "S3CRET" not in str(raised.value)
    assert "(cannot connect: ... {'credential': ...})" in str(raised.value)
