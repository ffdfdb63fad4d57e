"""What earlier runs found out: what is taken over, what is kept, and what is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.lake.known import (
    Known,
    carry,
    forget,
    ingested_files,
    known_schema,
    version_keys,
    with_keys,
)
from pipeline.lake.plans import (
    ROWS_PER_GROUP,
    documents_table,
    plans_of,
    plans_table,
    read_rows,
    row_writer,
    run_file,
)
from pipeline.records import Document, Failure, FailureKind, MediaType, Plan, StageName

TIMEOUT, LOCKED = FailureKind.RENDER_TIMEOUT, FailureKind.ENCRYPTED


def document(name: str, size: int = 5, modified: str = "t1") -> Document:
    return Document(f"/in/{name}.pdf", size, modified, MediaType.PDF)


def plan(name: str, content: str, fails: FailureKind | None = None, **version: Any) -> Plan:
    if fails is None:
        return Plan(document(name, **version), content, 3, (1, 2, 3))
    failure = Failure(StageName.DISCOVER, fails, "bad")
    return Plan(document(name, **version), content, None, failure=failure)


def write(output, run: str, plans: Sequence[Plan], fingerprint: str = "f1") -> str:
    name = run_file(run, "plans")
    with row_writer(output.layout, name, known_schema(fingerprint)) as put:
        put(with_keys(plans_table(plans)))
    return name


def known(output, documents: Sequence[Document], retry=None) -> list[str | None]:
    """Return the content that is known of each document, None if it is to be read."""
    listed = documents_table(documents)
    with Known(output.layout, "f1", retry) as index:
        rows = index.find(listed, version_keys(listed))
        found = iter(index.found_out(rows[rows >= 0])["document_id"].to_pylist())
        return [next(found) if row >= 0 else None for row in rows.tolist()]


def test_a_document_is_known_while_size_and_time_are_the_same(output):
    write(output, "r1", [plan("a", "A"), plan("b", "B"), plan("c", "C")])
    listed = [document("c"), document("a", size=6), document("b", modified="t2"), document("a")]
    assert known(output, [*listed, document("new")]) == ["C", None, None, "A", None]


def test_what_a_store_tells_nothing_of_is_read_again(output):
    write(output, "r1", [plan("a", "A", size=-1), plan("b", "B", modified="")])
    assert known(output, [document("a", size=-1), document("b", modified="")]) == [None, None]


def test_another_fingerprint_knows_nothing(output):
    write(output, "r1", [plan("a", "A")], fingerprint="f2")
    assert known(output, [document("a")]) == [None]


def test_the_last_run_decides(output):
    write(output, "r1", [plan("a", "old"), plan("b", "B")])
    write(output, "r2", [plan("a", "A")])
    assert known(output, [document("b"), document("a")]) == ["B", "A"]


def test_half_a_file_that_a_killed_run_left_is_passed_over(output):
    write(output, "r1", [plan("a", "A")])
    output.layout.write_bytes(run_file("r2", "plans"), b"PAR1 and no more")
    assert known(output, [document("a")]) == ["A"]


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (None, ["A", None, None]),
        (frozenset(), ["A", "B", "C"]),
        (frozenset({TIMEOUT}), ["A", None, "C"]),
        (frozenset({LOCKED, TIMEOUT}), ["A", None, None]),
    ],
)
def test_which_failures_are_planned_again_is_the_callers_choice(output, retry, expected):
    write(output, "r1", [plan("a", "A"), plan("b", "B", TIMEOUT), plan("c", "C", LOCKED)])
    assert known(output, [document(name) for name in "abc"], retry) == expected


def test_rows_are_fetched_in_order_from_many_groups_and_files(output):
    names = [f"{number:04}" for number in range(2 * ROWS_PER_GROUP + 10)]
    write(output, "r1", [plan(name, f"1-{name}") for name in names])
    write(output, "r2", [plan(name, f"2-{name}") for name in names[::2]])
    expected = [f"{1 + (int(name) % 2 == 0)}-{name}" for name in names]
    assert known(output, [document(name) for name in reversed(names)]) == expected[::-1]


def test_what_runs_came_to_is_kept_of_the_last_hundred_so_that_little_is_listed(output):
    """Run ids are sortable by time, and the run that ends writes its own metrics last."""
    runs = [f"r{number:03}" for number in range(150)]
    metrics = [f"_pagelake/runs/{run}/metrics.json" for run in runs]
    for name in metrics:
        output.layout.write_bytes(name, b"{}")
    old = write(output, runs[0], [plan("a", "A")])
    write(output, runs[1], [plan("b", "B")])
    forget(output.layout, [old])
    assert output.layout.list("_pagelake/runs", deep=True) == [old, *metrics[-99:]]
    folders = {path.name for path in output.layout.local("_pagelake/runs").iterdir()}
    assert folders == {runs[0], *runs[-99:]}


def test_what_a_run_does_not_name_is_carried_and_all_else_deleted(output):
    old = write(output, "r1", [plan("a", "A"), plan("b", "B"), plan("c", "C")])
    killed = write(output, "r2", [plan("b", "B2", size=9), plan("d", "D", TIMEOUT)])
    gone = write(output, "r3", [plan("x", "X")], fingerprint="f0")
    output.layout.write_bytes("_pagelake/runs/r2/shards.parquet", b"")
    output.layout.write_bytes("_pagelake/runs/r1/metrics.json", b"{}")
    new = write(output, "r4", [plan("a", "A4", size=7), plan("e", "E")])
    carried = carry(output.layout, "r4", "f1", new)
    keep = [new, *carried]
    forget(output.layout, keep)
    left = output.layout.list("_pagelake/runs", deep=True)
    assert left == sorted([*keep, "_pagelake/runs/r1/metrics.json"])
    assert not {old, killed, gone} & set(left)
    (file,) = carried
    rows = [one for table in read_rows(output.layout, file) for one in plans_of(table)]
    assert [(one.document_id, one.document.uri) for one in rows] == [
        ("C", "/in/c.pdf"),
        ("B2", "/in/b.pdf"),
        ("D", "/in/d.pdf"),
    ]
    listed = [document("a", size=7), document("b", size=9), document("c"), document("b")]
    assert known(output, listed) == ["A4", "B2", "C", None]


def test_nothing_is_carried_when_the_run_names_all(output):
    write(output, "r1", [plan("a", "A")])
    new = write(output, "r2", [plan("a", "A"), plan("b", "B")])
    assert carry(output.layout, "r2", "f1", new) == []


def test_plans_of_many_ingests_are_in_few_files_and_once(output, monkeypatch):
    monkeypatch.setattr("pipeline.lake.known._TINY_ROWS", 2)
    named: list[str] = []
    for number in range(40):
        new = write(output, f"r{number:02}", [plan(f"{number}", "A"), plan("same", f"{number}")])
        named = [new, *carry(output.layout, f"r{number:02}", "f1", new, named)]
        forget(output.layout, named)
        assert len(named) <= 6
    rows = [
        one for name in named for table in read_rows(output.layout, name) for one in table["uri"]
    ]
    assert sorted(map(str, rows)) == sorted(f"/in/{name}.pdf" for name in [*range(40), "same"])
    assert known(output, [document("same"), document("7")]) == ["39", "A"]


def test_what_is_only_known_is_not_taken_for_ingested(output):
    first = write(output, "r1", [plan("a", "A")])
    write(output, "r2", [plan("a", "A"), plan("b", "B")])  # killed
    new = write(output, "r3", [plan("c", "C")])
    named = [new, *carry(output.layout, "r3", "f1", new, [first])]
    assert [name.rpartition("/")[2] for name in named] == [
        "plans.parquet",
        "ingested.parquet",
        "known.parquet",
    ]
    assert ingested_files(named) == named[:2]
    (rows,) = (table["uri"].to_pylist() for table in read_rows(output.layout, named[2]))
    assert rows == ["/in/b.pdf"]
