from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
