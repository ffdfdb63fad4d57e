"""Laws of the house that no other check sees."""

from __future__ import annotations

import re
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


def test_the_table_of_abilities_names_tests_that_are_there() -> None:
    here = Path(__file__).parent
    table = (here.parent / "docs" / "MODELS.md").read_text("utf-8")
    defined = {
        name
        for file in here.rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text("utf-8"))
    }
    named = set(re.findall(r"`(test_\w+)`", table))
    assert len(named) > 40
    assert named - defined == set()
    files = {Path(name) for name in re.findall(r"`([\w/]+/test_\w+\.py)`", table)}
    assert {str(name) for name in files if not any(here.rglob(str(name)))} == set()
