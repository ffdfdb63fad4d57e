from __future__ import annotations

import tracemalloc

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.lake.row_pages import RowPages, live_rows

Row = tuple[str, list[int]]

ROWS = st.tuples(
    st.sampled_from(["a", "b", "c" * 64]),
    st.lists(st.integers(1, 6), unique=True, max_size=4).map(sorted),
)


def pages_of(rows: list[Row], skipped: int = 0) -> RowPages:
    """Read rows as they come from a file, which may be in the middle of a larger array."""
    ids = pa.array(["x"] * skipped + [name for name, _ in rows], pa.string())
    pages = pa.array([[1, 2]] * skipped + [pages for _, pages in rows], pa.list_(pa.int32()))
    return RowPages.of(ids[skipped:], pages[skipped:])


@given(st.lists(st.lists(ROWS, max_size=8), max_size=4), st.integers(0, 2))
def test_the_newest_row_of_a_page_wins(files: list[list[Row]], skipped: int) -> None:
    newest: dict[tuple[str, int], tuple[int, int]] = {}
    for number, rows in enumerate(files):
        for place, (name, pages) in enumerate(rows):
            newest |= {(name, page): (number, place) for page in pages}
    found = live_rows([pages_of(rows, skipped) for rows in files])
    assert [mask.tolist() for mask in found] == [
        [(number, place) in newest.values() for place in range(len(rows))]
        for number, rows in enumerate(files)
    ]


def test_a_row_of_which_one_page_was_not_done_again_stays() -> None:
    (found,) = live_rows([pages_of([("a", [1, 2, 3]), ("a", [1, 3]), ("b", [2])])])
    assert found.tolist() == [True, True, True]
    (found,) = live_rows([pages_of([("a", [1, 2, 3]), ("a", [1, 3]), ("a", [2])])])
    assert found.tolist() == [False, True, True]


def test_rows_of_one_page_cost_twenty_bytes_each() -> None:
    n_rows = 100_000
    ids = pa.array([f"{number:064x}" for number in range(n_rows)])
    ones = pa.ListArray.from_arrays(
        pa.array(np.arange(n_rows + 1, dtype=np.int32)), pa.array(np.ones(n_rows, np.int32))
    )
    step = 10_000
    tracemalloc.start()
    try:
        held = RowPages.joined(
            RowPages.of(ids[at : at + step], ones[at : at + step]) for at in range(0, n_rows, step)
        )
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held.keys) == n_rows
    assert size < 21 * n_rows
