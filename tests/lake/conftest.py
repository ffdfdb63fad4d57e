from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.lake.exact_json import dumps
from pipeline.lake.layout import Layout
from pipeline.lake.ledger import Commit, Ledger
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

RECORD = pa.struct([("total", pa.int64())])


@dataclass(frozen=True)
class Output:
    """A lake on disk, and a short way to put pages into it."""

    layout: Layout
    ledger: Ledger
    record_type: pa.DataType = RECORD

    def page(
        self, document: str, number: int, record: Any = None, fails: FailureKind | None = None
    ) -> PageResult:
        sample = SampleId(document, f"/in/{document}.pdf", 9, (number,))
        if fails is FailureKind.TRUNCATED:
            failure = Failure(StageName.GENERATE, fails, "cut")
            return PageResult(sample, State.TRUNCATED, failure, raw_text="{")
        if fails is not None:
            return PageResult(sample, State.FAILED, Failure(StageName.RASTERIZE, fails, "bad"))
        return PageResult(sample, State.OK, record=record, record_json=dumps(record))

    def provenance(self, run: str = "r1", fingerprint: str = "f1") -> Provenance:
        return Provenance(run, "extract", "s.v1", "nano", "1", "p", "0.1.0", fingerprint)

    def write(
        self, pages: Sequence[PageResult], run: str = "r1", fingerprint: str = "f1"
    ) -> Commit:
        provenance = self.provenance(run, fingerprint)
        return write_pages(self.ledger, pages, [{}] * len(pages), provenance, self.record_type)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    layout = Layout.open(str(tmp_path / "out"))
    layout.prepare()
    return Output(layout, Ledger(layout))


@dataclass(frozen=True)
class Sized:
    """A table that counts how often it is asked for its size."""

    table: pa.Table
    asked: Counter[str]

    @property
    def num_rows(self) -> int:
        self.asked["num_rows"] += 1
        return self.table.num_rows

    @property
    def nbytes(self) -> int:
        self.asked["nbytes"] += 1
        return self.table.nbytes


@dataclass(frozen=True)
class Sizes:
    """Wraps tables, so that tests can tell how much work it is to measure them."""

    asked: Counter[str] = field(default_factory=Counter)

    def of(self, table: pa.Table) -> Sized:
        return Sized(table, self.asked)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Sizes:
    concat_tables = pa.concat_tables
    monkeypatch.setattr(
        pa,
        "concat_tables",
        lambda tables: concat_tables([getattr(one, "table", one) for one in tables]),
    )
    return Sizes()
