"""What a run that is killed as it publishes leaves half done is ended by whoever comes next."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.lake.ledger import Counts, Ledger, Manifest
from pipeline.lake.swap import heal, swap

OLD, NEW = "documents/old.parquet", "documents/new.parquet"


def nobody_else() -> None:
    """Nobody else has the output."""


@pytest.fixture
def finished(output):
    """A finished table, what a later run has written to take its place, and that run's manifest."""
    for name in (OLD, NEW):
        output.layout.write_bytes(name, b"rows")
    manifest = Manifest(
        provenance=output.provenance(),
        schema={"type": "object"},
        runs=("r1",),
        pages=(),
        documents=(OLD,),
        plans=(),
        counts=Counts(),
        finished_at=dt.datetime(2024, 5, 6, tzinfo=dt.UTC),
    )
    output.ledger.publish(manifest)
    commit = output.write([output.page("a", 1, {"total": 1})])
    folded = {commit.name: commit.written_at.isoformat()}
    return replace(manifest, documents=(NEW,), pages=(commit.file,), folded=folded)


def everything(output):
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in Path(output.layout.uri).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("killed_in", ["sweep", "the first publish", "the second publish"])
def test_what_a_killed_swap_left_is_ended_once(output, finished, monkeypatch, killed_in):
    publish, left = Ledger.publish, ["the first publish", "the second publish"]

    def stop(*_):
        raise KeyboardInterrupt

    def publish_or_stop(self, manifest):
        return stop() if left.pop(0) == killed_in else publish(self, manifest)

    with monkeypatch.context() as patch:
        if killed_in == "sweep":
            patch.setattr(Ledger, "sweep", stop)
        patch.setattr(Ledger, "publish", publish_or_stop)
        with pytest.raises(KeyboardInterrupt):
            swap(output.ledger, output.ledger.snapshot(), finished, nobody_else)
    unfinished = output.write([output.page("b", 1, {"total": 1})], run="r2")
    heal(output.ledger, nobody_else)
    found = output.ledger.snapshot()
    assert found.manifest is not None
    live = OLD if killed_in == "the first publish" else NEW
    assert output.layout.list("documents") == [live] == list(found.manifest.documents)
    assert (found.orphans(), found.manifest.folded) == ([], {})
    assert unfinished in found.commits
    before = everything(output)
    heal(output.ledger, nobody_else)
    assert everything(output) == before


def test_before_the_first_table_only_what_was_never_committed_goes(output):
    commit = output.write([output.page("a", 1, {"total": 1})])
    output.layout.write_bytes(NEW, b"rows")
    heal(output.ledger, nobody_else)
    assert output.layout.list("documents") == []
    assert output.ledger.commits() == [commit]


def test_nothing_is_deleted_once_the_output_is_lost_to_another(output, finished):
    def lost():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heal(output.ledger, lost)
    assert output.layout.list("documents") == [NEW, OLD]
