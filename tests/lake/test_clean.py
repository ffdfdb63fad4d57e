"""`pagelake clean`: leftovers of dead runs go, and everything that counts stays."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.lake.clean import clean
from pipeline.lake.holder import this_process
from pipeline.lake.layout import LOCK
from pipeline.lake.ledger import Counts, Manifest
from pipeline.lake.lock import Lock

RUN = "_pagelake/runs/r1"


def files(output: Any) -> set[str]:
    root = Path(output.layout.root)
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def used(output: Any) -> set[str]:
    """Fill an output with what counts, and return the names of it."""
    folded = output.write([output.page("a", 1, {"total": 1})])
    output.write([output.page("b", 1, {"total": 1})], run="r2", fingerprint="f2")
    output.layout.write_bytes("pages/compacted.parquet", b"1")
    output.layout.write_bytes("documents/now.parquet", b"1")
    kept = (f"{RUN}/plans.parquet", f"{RUN}/metrics.json")
    for name in (*kept, "_pagelake/job.yaml", "_pagelake/published"):
        output.layout.write_bytes(name, b"1")
    for fingerprint in ("f1", "f2"):
        output.layout.write_bytes(f"_pagelake/identities/{fingerprint}.json", b"{}")
    manifest = Manifest(
        provenance=output.provenance(),
        schema={},
        runs=("r1",),
        pages=("pages/compacted.parquet",),
        documents=("documents/now.parquet",),
        plans=(f"{RUN}/plans.parquet",),
        counts=Counts(),
        finished_at=datetime.now(UTC),
        folded={folded.name: folded.written_at.isoformat()},
    )
    output.ledger.publish(manifest)
    output.ledger.sweep()
    return files(output)


@pytest.fixture
def left(output: Any, used: set[str]) -> dict[str, set[str]]:
    """Leave behind what dead runs leave, and return the names by kind."""
    dead = output.write([output.page("c", 1, {"total": 1})], run="r3")
    output.layout.delete(dead.file)
    left = {
        "unfinished": {f"{folder}/x.0f.tmp" for folder in ("pages", "documents", "_pagelake", RUN)},
        "pages": {"pages/uncommitted.parquet"},
        "documents": {"documents/old.parquet"},
        "commits": {f"_pagelake/commits/{dead.name}.json"},
        "papers": {f"{RUN}/documents.parquet", f"{RUN}/shards.parquet"},
        "identities": {"_pagelake/identities/f0.json"},
    }
    for name in set().union(*left.values()) - left["commits"]:
        output.layout.write_bytes(name, b"12345")
    return left


def test_leftovers_go_and_all_that_counts_stays(
    output: Any, used: set[str], left: dict[str, set[str]]
) -> None:
    found = clean(output.layout.uri)
    assert {kind: set(names) for kind, names in found.files.items()} == left
    assert set(found.files["papers"].values()) == {5}
    assert files(output) == used | {"_pagelake/.guard"}
    assert clean(output.layout.uri).text() == "nothing to delete"


def test_a_dry_run_lists_the_same_and_deletes_nothing(
    output: Any, used: set[str], left: dict[str, set[str]]
) -> None:
    before = files(output)
    listed = clean(output.layout.uri, dry_run=True)
    assert files(output) == before
    assert "nothing is deleted in a dry run" in listed.text()
    assert json.loads(listed.to_json())["kinds"]["papers"] == {
        "files": 2,
        "bytes": 10,
        "names": sorted(left["papers"]),
    }
    assert listed.files == clean(output.layout.uri).files


def test_a_dead_runs_lock_goes(output: Any, used: set[str]) -> None:
    dead = this_process("r3", timedelta(0))
    output.layout.write_bytes(LOCK, dead.to_json().encode())
    found = clean(output.layout.uri)
    assert set(found.files) == {"lock"}
    assert not output.layout.exists(LOCK)


@pytest.mark.parametrize("dry_run", [False, True])
def test_nothing_is_deleted_while_a_run_is_on(
    output: Any, left: dict[str, set[str]], dry_run: bool
) -> None:
    with Lock(output.layout, "r9"):
        before = files(output)
        with pytest.raises(OutputError, match=r"in use since .* by run r9"):
            clean(output.layout.uri, dry_run=dry_run)
        assert files(output) == before


@pytest.mark.parametrize("where", ["pile", "nowhere"])
def test_a_folder_that_is_no_output_is_left_alone(tmp_path: Path, where: str) -> None:
    (tmp_path / "pile" / "pages").mkdir(parents=True)
    (tmp_path / "pile" / "pages" / "scan.tmp").write_bytes(b"mine")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="no run has written here; name a job's output"):
        clean(str(tmp_path / where))
    assert set(tmp_path.rglob("*")) == before


def test_nothing_is_deleted_on_the_word_of_a_damaged_commit(
    output: Any, left: dict[str, set[str]]
) -> None:
    commit = {"run_id": "r", "fingerprint": "f", "name": "x", "n_rows": 1, "states": {}}
    trick = commit | {"file": "../../etc/passwd", "written_at": "2024-05-06T07:08:09Z"}
    output.layout.write_bytes("_pagelake/commits/x.json", json.dumps(trick).encode())
    before = files(output)
    with pytest.raises(OutputError, match=r"x\.json is damaged"):
        clean(output.layout.uri)
    assert files(output) - {"_pagelake/.guard"} == before
