"""`output.partition_by`: the folders of documents, as engines read them, over runs and changes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import PIL.Image
import pyarrow.dataset as ds
import pytest

from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.lake import partitions
from pipeline.lake.clean import clean
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Ledger
from pipeline.runners.summary import Summary
from tests.stores.s3_server import S3Server

MakeJob = Callable[..., Job]
RunJob = Callable[..., Summary]

CUSTOMERS = ("ACME", "acme", "a b", "a/b", "..", "", "日本 ü", "x=%41+", "A'\"*?[x]{y}\\", "NULL")
BY = ("source.customer", "state")


class Pile:
    """Images and the manifest that names them, with a customer each."""

    def __init__(self, folder: Path, make_job: MakeJob) -> None:
        self.folder, self.make_job = folder, make_job
        self.customers: dict[str, str] = {}

    def add(self, name: str, customer: str) -> None:
        image = PIL.Image.new("L", (40, 30), (len(self.customers) * 7) % 255)
        image.save(self.folder / f"{name}.png")
        self.customers[name] = customer
        with (self.folder / "in.csv").open("w", newline="") as file:
            lines = [(f"{name}.png", customer) for name, customer in self.customers.items()]
            csv.writer(file).writerows([("uri", "customer"), *lines])

    def job(self, by: Any = BY, **settings: Any) -> Job:
        output = {"uri": str(self.folder / "out"), "partition_by": by}
        model = {"family": "fake", "name": "fake?edge=224"}
        task = {"task": "ocr", "schema": "text.v1", "model": model}
        chosen = {"output": output, **task, **settings}
        return self.make_job([], input={"manifest": str(self.folder / "in.csv")}, **chosen)

    def read_by_pyarrow(self) -> dict[str, str | None]:
        found = ds.dataset(self.folder / "out/documents", partitioning="hive").to_table()
        pairs = zip(found["uri"].to_pylist(), found["source.customer"].to_pylist(), strict=True)
        return unique(pairs)

    def read_by_duckdb(self) -> dict[str, str | None]:
        return unique(self.sql('SELECT uri, "source.customer" FROM documents'))

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        files = f"read_parquet('{self.folder}/out/documents/**/*.parquet', hive_partitioning=true)"
        return duckdb.sql(text.replace("documents", files)).fetchall()

    def files(self) -> set[str]:
        """Names of the files of documents; each must be the manifest's, and each of these there."""
        found = set(Layout.open(str(self.folder / "out")).list("documents", deep=True))
        manifest = Ledger(Layout.open(str(self.folder / "out"))).manifest()
        assert manifest is not None
        assert found == set(manifest.documents)
        return found


def unique(pairs: Any) -> dict[str, str | None]:
    listed = [(Path(uri).stem, customer) for uri, customer in pairs]
    assert len(dict(listed)) == len(listed)
    return dict(listed)


@pytest.fixture
def pile(tmp_path: Path, make_job: MakeJob) -> Pile:
    return Pile(tmp_path, make_job)


@pytest.fixture
def odd_pile(pile: Pile) -> Pile:
    for number, customer in enumerate(CUSTOMERS):
        pile.add(f"n{number}", customer)
    return pile


def test_engines_read_every_row_once_with_its_value(odd_pile: Pile, run_job: RunJob) -> None:
    job = odd_pile.job()
    (odd_pile.folder / "n0.png").write_bytes(b"none")
    run_job(job)
    expected = {name: customer or None for name, customer in odd_pile.customers.items()}
    assert odd_pile.read_by_pyarrow() == expected
    assert odd_pile.read_by_duckdb() == expected
    inside = odd_pile.sql("SELECT uri, source['customer'] FROM documents")
    assert unique(inside) == expected
    names = odd_pile.files()
    assert len(names) == len(CUSTOMERS)
    assert any(name.startswith("documents/source.customer=a%2Fb/state=ok/") for name in names)
    assert any("/source.customer=__HIVE_DEFAULT_PARTITION__/" in name for name in names)
    assert odd_pile.sql("SELECT count(*) FROM documents WHERE state = 'failed'") == [(1,)]


def test_a_filter_leaves_the_other_folders_unread(odd_pile: Pile, run_job: RunJob) -> None:
    summary = run_job(odd_pile.job())
    dataset = ds.dataset(odd_pile.folder / "out/documents", partitioning="hive")
    wanted = ds.field("source.customer") == "a/b"
    assert len(list(dataset.get_fragments(wanted))) == dataset.count_rows(filter=wanted) == 1
    ((_, text),) = odd_pile.sql("EXPLAIN FROM documents WHERE \"source.customer\" = 'a/b'")
    assert f"Scanning Files: 1/{len(CUSTOMERS)}" in text
    assert "/documents/**/*.parquet" in summary.query()


def test_a_changed_row_moves_to_another_folder_and_the_others_files_stay(
    pile: Pile, run_job: RunJob
) -> None:
    for name, customer in {"a": "X", "b": "Y", "c": "Z"}.items():
        pile.add(name, customer)
    (pile.folder / "a.png").write_bytes(b"none")
    run_job(pile.job())
    before = pile.files()
    pile.add("a", "X")
    pile.add("d", "Y")
    assert run_job(pile.job(), incremental=True).documents_carried == 2
    after = pile.files()
    assert {name.split("/")[1] for name in before & after} == {"source.customer=Z"}
    expected = {"a": "X", "b": "Y", "c": "Z", "d": "Y"}
    assert pile.read_by_duckdb() == pile.read_by_pyarrow() == expected
    assert len(after) == 3
    assert pile.sql("SELECT count(*) FROM documents WHERE state = 'failed'") == [(0,)]
    assert not (pile.folder / "out/documents/source.customer=X/state=failed").exists()


def test_another_partition_by_moves_all_documents(pile: Pile, run_job: RunJob) -> None:
    pile.add("a", "X")
    pile.add("b", "Y")
    run_job(pile.job(()))
    for name, by in {"c": BY, "d": ("state", "source.customer"), "e": ()}.items():
        pile.add(name, "Y")
        assert run_job(pile.job(by), incremental=True).done.pages == 1
        for file in pile.files():
            assert [step.split("=")[0] for step in file.split("/")[1:-1]] == list(by)
        assert unique(pile.sql("SELECT uri, source['customer'] FROM documents")) == pile.customers


def test_too_many_partitions_are_refused_before_a_page_is_read(
    odd_pile: Pile, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "MAX_FOLDERS", len(CUSTOMERS) - 1)
    monkeypatch.setattr("pipeline.runners.run._read_pages", None)  # it is not come to
    with pytest.raises(JobError, match=r"output\.partition_by: source\.customer would make more"):
        run_job(odd_pile.job())


def test_values_too_long_and_columns_not_there_are_refused(pile: Pile, run_job: RunJob) -> None:
    pile.add("a", "x" * 300)
    with pytest.raises(JobError, match=r"source\.customer: the value 'xxx.* too long"):
        run_job(pile.job())
    with pytest.raises(JobError, match=r"the manifest has no column 'client'.*it has customer"):
        run_job(pile.job("source.client"))
    for settings, what in [
        ({"partition_by": "uri"}, "write state, schema_id, or source.NAME"),
        ({"partition_by": "source.a/b"}, "write state"),
        ({"partition_by": ["state", "state"]}, "named twice"),
        ({"partition_by": "state", "format": "delta"}, "format delta has a layout of its own"),
    ]:
        with pytest.raises(ValueError, match=what):
            pile.job(output={"uri": "out", **settings})


def test_clean_leaves_live_files_alone(odd_pile: Pile, run_job: RunJob) -> None:
    run_job(odd_pile.job())
    live = odd_pile.files()
    dead = "documents/source.customer=X/state=ok/dead.parquet"
    for name in (dead, f"{dead}.0f.tmp"):
        Layout.open(str(odd_pile.folder / "out")).write_bytes(name, b"12345")
    found = clean(str(odd_pile.folder / "out"))
    assert {kind: set(names) for kind, names in found.files.items() if kind != "papers"} == {
        "documents": {dead},
        "unfinished": {f"{dead}.0f.tmp"},
    }
    assert odd_pile.files() == live


def test_rows_that_waited_on_disk_are_all_there_in_few_files(
    odd_pile: Pile, run_job: RunJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "_WAITING_BYTES", 1)
    monkeypatch.setattr("pipeline.stages.assemble._DOCUMENTS_AT_ONCE", 3)
    run_job(odd_pile.job("state"))
    odd_pile.add("more", "X")
    run_job(odd_pile.job("state"), incremental=True)
    assert len(odd_pile.files()) == 1
    assert odd_pile.sql("SELECT count(DISTINCT uri) FROM documents") == [(len(CUSTOMERS) + 1,)]


def test_a_store_keeps_the_names_that_engines_look_for(
    odd_pile: Pile, run_job: RunJob, s3: S3Server
) -> None:
    s3.make_bucket("partitions")
    output = {"uri": "s3://partitions/out", "partition_by": BY}
    run_job(odd_pile.job(output=output, stores=s3.stores))
    dataset = ds.dataset("partitions/out/documents", filesystem=s3.filesystem, partitioning="hive")
    found = dataset.to_table(columns=["uri", "source.customer"])
    expected = {name: customer or None for name, customer in odd_pile.customers.items()}
    pairs = zip(found["uri"].to_pylist(), found["source.customer"].to_pylist(), strict=True)
    assert unique(pairs) == expected
    odd_pile.add("more", "a/b")
    run_job(odd_pile.job(output=output, stores=s3.stores), incremental=True)
    dataset = ds.dataset("partitions/out/documents", filesystem=s3.filesystem, partitioning="hive")
    assert (dataset.count_rows(), len(dataset.files)) == (len(CUSTOMERS) + 1, len(CUSTOMERS))
