from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Ledger
from pipeline.lake.types import arrow_type
from pipeline.records import (
    Failure,
    FailureKind,
    PageResult,
    Provenance,
    SampleId,
    StageName,
    State,
)
from pipeline.stages.write import write_pages

RECORD = arrow_type(
    {"properties": {"total": {"type": "number", "x-arrow": "decimal128(12, 2)"}, "note": {}}}
)
PROVENANCE = Provenance("r1", "extract", "s.v1", "nano", "rev", "prompt", "0.1.0", "f1")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    layout = Layout.open(str(tmp_path))
    layout.prepare()
    return Ledger(layout)


def page(number: int, total: object, **rest: object) -> PageResult:
    sample = SampleId("d", "/in/d.pdf", 3, (number,))
    return PageResult(sample, State.OK, record={"total": total}, **rest)


def write(ledger: Ledger, pages: list[PageResult], provenance: Provenance = PROVENANCE):
    return write_pages(ledger, pages, [{"shop": "x"}] * len(pages), provenance, RECORD)


def rows(ledger: Ledger) -> list[dict[str, object]]:
    paths = [f"{ledger.layout.root}/{name}" for name in ledger.page_files()]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_rows_are_written_and_committed(ledger):
    commit = write(ledger, [page(1, Decimal("1.50"), raw_text="{}"), page(2, 3)])
    assert (commit.n_rows, commit.states, commit.failures) == (2, {"ok": 2}, {})
    first, second = rows(ledger)
    assert first["record"] == {"total": Decimal("1.50"), "note": None}
    assert first["record_json"] == '{"total":1.50}'
    assert (first["run_id"], first["raw_text"], first["source"]) == ("r1", "{}", [("shop", "x")])
    assert first["processed_at"] == commit.written_at
    assert second["record"]["total"] == Decimal("3.00")


def test_a_task_that_is_tried_again_writes_over_itself(ledger):
    first = write(ledger, [page(1, 1), page(2, 2)])
    again = write(ledger, [page(2, 2), page(1, 1)])
    assert first.file == again.file
    assert len(rows(ledger)) == 2
    assert len(ledger.layout.list("pages")) == 1


def test_other_pages_or_another_run_get_another_file(ledger):
    other_run = Provenance("r2", "extract", "s.v1", "nano", "rev", "prompt", "0.1.0", "f1")
    files = {write(ledger, [page(1, 1)]).file, write(ledger, [page(2, 1)]).file}
    assert len(files | {write(ledger, [page(1, 1)], other_run).file}) == 3


def test_rows_are_invisible_until_the_commit(ledger, monkeypatch):
    def die(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger, "commit", die)
    with pytest.raises(KeyboardInterrupt):
        write(ledger, [page(1, 1)])
    monkeypatch.undo()
    (orphan,) = ledger.layout.list("pages")
    assert ledger.page_files() == []
    assert ledger.orphans() == [orphan]
    assert write(ledger, [page(1, 1)]).file == orphan
    assert len(rows(ledger)) == 1


def test_a_record_that_the_table_cannot_hold_fails_its_row_only(ledger):
    commit = write(ledger, [page(1, Decimal("1.005")), page(2, 2)])
    assert commit.failures == {"schema_violation": 1}
    bad, good = rows(ledger)
    assert (bad["state"], bad["failure_stage"], bad["record"]) == ("failed", "parse", None)
    assert "1.005 does not fit" in bad["failure_message"]
    assert bad["record_json"] == '{"total":1.005}'
    assert good["state"] == "ok"


def test_a_failed_answer_keeps_its_json_and_has_no_record(ledger):
    failure = Failure(StageName.PARSE, FailureKind.SCHEMA_VIOLATION, "total is a string")
    sample = SampleId("d", "/in/d.pdf", 1, (1,))
    write(
        ledger,
        [
            PageResult(
                sample, State.FAILED, failure, record={"total": "x"}, record_json='{"total":"x"}'
            )
        ],
    )
    (row,) = rows(ledger)
    assert (row["record"], row["record_json"]) == (None, '{"total":"x"}')


def test_nothing_to_write_is_a_mistake(ledger):
    with pytest.raises(ValueError, match="no rows"):
        write(ledger, [])
