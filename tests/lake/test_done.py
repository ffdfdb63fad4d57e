from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline.lake.done import done_set
from pipeline.lake.parquet import write_table
from pipeline.records import FailureKind

CRASH, ENCRYPTED, TRUNCATED = (
    FailureKind.RENDER_CRASH,
    FailureKind.ENCRYPTED,
    FailureKind.TRUNCATED,
)


def done(output, retry=None, fingerprint="f1") -> list[int]:
    found = done_set(output.ledger, fingerprint, retry)
    pages = [number for number in range(1, 10) if found.contains("a", number)]
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


@pytest.mark.parametrize("retry", [None, frozenset(), frozenset({CRASH})])
@pytest.mark.parametrize("ends", [None, CRASH, TRUNCATED])
def test_a_row_finishes_its_pages_while_it_is_the_newest_of_them_all(output, retry, ends):
    record = {"total": 1} if ends is None else None
    whole = output.page("a", 1, record, fails=ends)
    output.write([replace(whole, id=replace(whole.id, page_numbers=(1, 2, 3)))])
    kept = [] if ends is CRASH and retry != frozenset() else [1, 2, 3]
    assert done(output, retry) == kept
    output.write([output.page("a", 2, {"total": 1})], run="r2")
    assert done(output, retry) == [2]


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
    assert found.contains("a", 1)
    assert not found.contains("a", 2)
    assert not found.contains("b", 1)


def test_the_missing_pages_of_many_rows_are_told_at_once(output):
    output.write([output.page("a", n, {"total": 1}) for n in (1, 3)])
    found = done_set(output.ledger, "f1")
    pages = pa.array([[1, 2, 3, 4], [], [1], [3, 1]], pa.list_(pa.int32()))
    ids = pa.array(["a", "a", "b", "a"])
    done = [True, False, True, False, False, True, True]
    assert (~found.missing(ids, pages)).tolist() == done
    assert (~found.missing(ids[2:], pages[2:])).tolist() == done[4:]
    assert found.missing(ids[:0], pages[:0]).tolist() == []


@pytest.mark.parametrize("retry", [None, frozenset({CRASH}), frozenset({CRASH, TRUNCATED})])
def test_twenty_thousand_rows_are_as_a_plain_dict_has_them(output, monkeypatch, retry):
    drawn = random.Random(5)
    ids = [f"{drawn.getrandbits(256):064x}" for _ in range(3000)]
    ends = [("ok", None), ("truncated", TRUNCATED), ("failed", CRASH), ("failed", ENCRYPTED)]
    newest = {}
    files, written = [], []
    for number in range(5):
        rows = []
        for place in range(4000):
            pages = [1] if drawn.random() < 0.8 else drawn.sample(range(1, 9), drawn.randint(1, 3))
            state, kind = drawn.choice(ends)
            rows.append((drawn.choice(ids), pages, state, kind))
            newest |= {(rows[-1][0], page): (number, place) for page in pages}
        written.append(rows)
        names = ("document_id", "page_numbers", "state", "failure_kind")
        table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        files.append(f"pages/{number}.parquet")
        write_table(output.layout, files[-1], table)
    monkeypatch.setattr(type(output.ledger), "page_files", lambda *_: files)

    def finished(number: int, place: int) -> bool:
        document, pages, state, kind = written[number][place]
        if any(newest[document, page] != (number, place) for page in pages):
            return False  # other pages of the row were done again
        return state != "failed" if retry is None else kind not in retry

    found = done_set(output.ledger, "f1", retry)
    expected = {key: finished(*row) for key, row in newest.items()}
    assert len(newest) < 15_000  # rows were replaced
    assert {key: found.contains(*key) for key in newest} == expected
    assert len(found) == sum(expected.values())
