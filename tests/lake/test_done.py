from __future__ import annotations

import pytest

from pipeline.lake.done import done_set
from pipeline.records import FailureKind

CRASH, ENCRYPTED, TRUNCATED = (
    FailureKind.RENDER_CRASH,
    FailureKind.ENCRYPTED,
    FailureKind.TRUNCATED,
)


def done(output, retry=None, fingerprint="f1") -> list[int]:
    found = done_set(output.ledger, fingerprint, retry)
    pages = [number for number in range(1, 10) if found.contains("a", (number,))]
    assert len(found) == len(pages)
    return pages


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (None, [1, 4]),
        (frozenset(), [1, 2, 3, 4]),
        (frozenset({CRASH}), [1, 3, 4]),
        (frozenset({CRASH, ENCRYPTED}), [1, 4]),
        (frozenset({TRUNCATED}), [1, 2, 3]),
    ],
)
def test_what_is_done_again_is_the_callers_choice(output, retry, expected):
    output.write([output.page("a", 1, {"total": 1}), output.page("a", 2, fails=CRASH)])
    output.write(
        [output.page("a", 3, fails=ENCRYPTED), output.page("a", 4, fails=TRUNCATED)], run="r2"
    )
    assert done(output, retry) == expected


def test_the_newest_row_decides(output):
    output.write([output.page("a", 1, fails=CRASH), output.page("a", 2, {"total": 1})])
    output.write([output.page("a", 2, fails=CRASH), output.page("a", 1, {"total": 1})], run="r0")
    assert done(output) == [1]


def test_another_fingerprint_is_other_work(output):
    output.write([output.page("a", 1, {"total": 1})])
    assert done(output, fingerprint="f2") == []


def test_an_uncommitted_file_is_not_done(output):
    commit = output.write([output.page("a", 1, {"total": 1})])
    output.layout.delete(f"_pagelake/commits/{commit.name}.json")
    assert done(output) == []


def test_a_commit_without_its_file_is_not_done(output):
    output.write([output.page("a", 1, {"total": 1})])
    output.layout.delete(output.write([output.page("a", 2, {"total": 1})]).file)
    assert done(output) == [1]


def test_other_pages_and_documents_are_not_done(output):
    output.write([output.page("a", 1, {"total": 1})])
    found = done_set(output.ledger, "f1")
    assert found.contains("a", (1,))
    assert not found.contains("a", (1, 2))
    assert not found.contains("b", (1,))
