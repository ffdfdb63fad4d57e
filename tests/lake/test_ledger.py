from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace

import pytest

from pipeline.errors import OutputError
from pipeline.lake import ledger as ledger_module
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Counts, Manifest
from pipeline.records import FailureKind

NOW = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, dt.UTC)


def manifest(output, pages=(), folded=(), fingerprint="f1") -> Manifest:
    return Manifest(
        provenance=output.provenance(fingerprint=fingerprint),
        schema={"type": "object", "properties": {"total": {"type": "integer"}}},
        runs=("r1",),
        pages=tuple(pages),
        documents=(),
        plans=("_pagelake/runs/r1/plans.parquet",),
        counts=Counts({"ok": 2}, {"ok": 1}, {}),
        finished_at=NOW,
        folded={commit.name: commit.written_at.isoformat() for commit in folded},
    )


def test_a_commit_is_plain_json_and_comes_back(output):
    commit = output.write(
        [output.page("a", 1, {"total": 1}), output.page("a", 2, fails=FailureKind.ENCRYPTED)]
    )
    fields = json.loads(output.layout.read_bytes(f"_pagelake/commits/{commit.name}.json"))
    assert fields == {
        "run_id": "r1",
        "fingerprint": "f1",
        "name": commit.name,
        "file": f"pages/{commit.name}.parquet",
        "n_rows": 2,
        "states": {"ok": 1, "failed": 1},
        "failures": {"encrypted": 1},
        "written_at": commit.written_at.isoformat(),
    }
    assert output.ledger.commits() == [commit]


def test_commits_come_oldest_first(output):
    names = [output.write([output.page(name, 1, {"total": 1})]).name for name in "cab"]
    assert [commit.name for commit in output.ledger.commits()] == names


def test_a_manifest_comes_back(output):
    assert output.ledger.manifest() is None
    assert output.ledger.document_files() == []
    written = manifest(output, pages=["pages/x.parquet"])
    output.ledger.publish(written)
    assert output.ledger.manifest() == written
    assert (written.run_id, written.fingerprint) == ("r1", "f1")


def test_live_files_are_the_manifests_and_those_of_later_commits(output):
    first = output.write([output.page("a", 1, {"total": 1})])
    output.ledger.publish(manifest(output, pages=["pages/old.parquet"], folded=[first]))
    second = output.write([output.page("b", 1, {"total": 1})], run="r2")
    other = output.write([output.page("b", 1, {"total": 1})], run="r3", fingerprint="f2")
    assert output.ledger.page_files() == ["pages/old.parquet", second.file, other.file]
    assert output.ledger.page_files("f1") == ["pages/old.parquet", second.file]
    assert output.ledger.page_files("f2") == [other.file]


def test_a_commit_put_again_after_it_was_folded_counts_as_new(output):
    pages = [output.page("a", 1, {"total": 1})]
    output.ledger.publish(manifest(output, folded=[output.write(pages)]))
    assert output.ledger.page_files() == []
    again = output.write(pages)
    assert output.ledger.page_files() == [again.file]


def test_orphans_are_what_no_reader_looks_at(output):
    folded = output.write([output.page("a", 1, {"total": 1})])
    live = output.write([output.page("b", 1, {"total": 1})])
    output.layout.write_bytes("pages/uncommitted.parquet", b"")
    output.layout.write_bytes("documents/old.parquet", b"")
    output.ledger.publish(manifest(output, folded=[folded]))
    folded_file = f"_pagelake/commits/{folded.name}.json"
    orphans = output.ledger.orphans()
    assert sorted(orphans) == sorted(
        [folded.file, folded_file, "pages/uncommitted.parquet", "documents/old.parquet"]
    )
    output.ledger.sweep()
    assert output.ledger.orphans() == []
    assert output.ledger.page_files() == [live.file]
    assert output.layout.exists(live.file)


def test_a_commit_without_its_file_is_as_if_never_put(output):
    live = output.write([output.page("a", 1, {"total": 1})])
    dangling = output.write([output.page("b", 1, {"total": 1})])
    output.layout.delete(dangling.file)
    assert output.ledger.commits() == [live]
    assert output.ledger.page_files() == [live.file]
    assert output.ledger.orphans() == [f"_pagelake/commits/{dangling.name}.json"]
    output.ledger.sweep()
    assert output.layout.list("_pagelake/commits") == [f"_pagelake/commits/{live.name}.json"]


def test_what_came_after_a_snapshot_is_not_swept(output):
    output.layout.write_bytes("pages/uncommitted.parquet", b"")
    snapshot = output.ledger.snapshot()
    later = output.write([output.page("a", 1, {"total": 1})])
    output.ledger.sweep(snapshot)
    assert output.layout.list("pages") == [later.file]
    assert output.ledger.commits() == [later]


def test_a_snapshot_that_a_finishing_run_crosses_is_taken_again(output, monkeypatch):
    folded = output.write([output.page("a", 1, {"total": 1})])
    output.layout.write_bytes("pages/compacted.parquet", b"")
    finished = manifest(output, pages=["pages/compacted.parquet"], folded=[folded])
    listed = Layout.list

    def finish(layout, folder, **options):
        names = listed(layout, folder, **options)
        if folder == "documents" and output.ledger.manifest() is None:
            output.ledger.publish(finished)
            layout.delete(folded.file)
            layout.delete(f"_pagelake/commits/{folded.name}.json")
            output.ledger.publish(replace(finished, folded={}))
        return names

    monkeypatch.setattr(Layout, "list", finish)
    assert output.ledger.page_files() == ["pages/compacted.parquet"]


def test_an_unknown_format_is_refused(output, monkeypatch):
    monkeypatch.setattr(ledger_module, "FORMAT_VERSION", 2)
    output.ledger.publish(manifest(output))
    monkeypatch.undo()
    with pytest.raises(OutputError, match="format 2, and this pagelake reads format 1"):
        output.ledger.manifest()
