"""What `pagelake status` reads from an output's ledger alone."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.errors import OutputError
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Commit, Ledger
from pipeline.lake.lock import Lock
from pipeline.lake.plans import shards_table, write_rows
from pipeline.records import Shard, Window
from pipeline.runners.status import status


@pytest.fixture
def begun(tmp_path: Path) -> Layout:
    """An output in which run "now" has done 36 of 64 pages, two of them in vain."""
    layout = Layout.open(str(tmp_path / "out"))
    layout.prepare()
    window = Window("0" * 64, "a.pdf", 1, "", 8, tuple(range(1, 9)))
    write_rows(layout, "now", "shards", [shards_table([Shard((window,))] * 8)])
    now = datetime.now(UTC)
    for number, age in enumerate((300.0, 45.0, 30.0)):
        name = f"now-{number}"
        layout.write_bytes(f"pages/{name}.parquet", b"")
        Ledger(layout).commit(
            Commit(
                run_id="now" if age < 100 else "before",
                fingerprint="f",
                name=name,
                file=f"pages/{name}.parquet",
                n_rows=18,
                states={"ok": 17, "failed": 1},
                failures={"model_error": 1},
                written_at=now - timedelta(seconds=age),
            )
        )
    return layout


def test_a_run_that_goes_on_is_told_from_what_it_has_committed(begun: Layout) -> None:
    with Lock(begun, "now"):
        found = json.loads(status(begun.uri).to_json())
    assert (found["finished"], found["commits"], found["pages_committed"]) == (None, 3, 54)
    run = found["going_on"]
    assert (run["run_id"], run["pages_planned"], run["pages_committed"]) == ("now", 64, 36)
    assert run["failures"] == {"model_error": 2}
    # Since the first commit of its own, 45 s ago, 18 pages have come.
    assert run["pages_per_s"] == pytest.approx(18 / 45, rel=0.1)
    assert run["eta_s"] == pytest.approx(28 / (18 / 45), rel=0.1)


def test_a_run_that_was_stopped_is_told_with_the_mend(begun: Layout) -> None:
    found = status(begun.uri)
    assert found.going_on is None
    assert found.lines()[-1] == (
        "unfinished   54 pages in 3 commits, and no run is on; run the job again to continue"
    )


def test_a_folder_without_an_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no run has written here"):
        status(str(tmp_path))
