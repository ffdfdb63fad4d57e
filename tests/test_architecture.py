"""Laws of the house that no other check sees."""

from __future__ import annotations

from pathlib import Path

import pipeline
from pipeline.records import FailureKind
from pipeline.remedies import REMEDIES

ROOT = Path(pipeline.__file__).parent


def test_no_module_grows_past_what_one_reads_in_one_go() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in ROOT.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 350
    }
    assert long == {}


def test_every_failure_kind_says_what_to_do_about_it() -> None:
    assert set(REMEDIES) == set(FailureKind)
