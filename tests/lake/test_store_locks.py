"""Locks on stores that heed conditions, each in its own words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from conditional_store import ConditionalStore, conditional_store

from pipeline.errors import OutputError, RunError
from pipeline.lake.holder import this_process
from pipeline.lake.layout import LOCK, Layout
from pipeline.lake.lock import Lock, holder
from pipeline.lake.stores import Stores
from pipeline.store_settings import Store


@pytest.fixture
def store() -> Iterator[ConditionalStore]:
    with conditional_store() as made:
        yield made


@pytest.fixture(params=["s3", "gs"])
def layout(store: ConditionalStore, request: pytest.FixtureRequest) -> Layout:
    settings = Store(endpoint=store.endpoint, anonymous=True, attempts=2)
    return Layout.open(f"{request.param}://b/out", Stores.of({f"{request.param}://": settings}))


def hold_and_renew(layout: Layout) -> None:
    """Take a lock, renew it, and see that nobody else gets it meanwhile."""
    with Lock(layout, "first") as lock:
        before = holder(layout)
        lock.require()
        after = holder(layout)
        assert before is not None
        assert after is not None
        assert (before.run_id, after.run_id) == ("first", "first")
        assert after.expires > before.expires
        with pytest.raises(OutputError, match="in use"), Lock(layout, "second"):
            pass


def test_a_lock_is_renewed_and_one_that_has_run_out_is_taken_over(layout: Layout) -> None:
    layout.write_bytes(LOCK, this_process("gone", timedelta(0)).to_json().encode())
    hold_and_renew(layout)


@pytest.mark.parametrize("unknown", [("if-none-match", "if-match"), ("if-match",)])
def test_a_store_that_knows_no_condition_can_be_an_output(
    store: ConditionalStore, unknown: tuple[str, ...]
) -> None:
    store.unknown = frozenset(unknown)
    settings = Store(endpoint=store.endpoint, anonymous=True, attempts=1)
    layout = Layout.open("s3://b/out", Stores.of({"s3://": settings}))
    for left in (timedelta(0), None):  # over a lock that has run out, and over none
        if left is not None:
            layout.write_bytes(LOCK, this_process("gone", left).to_json().encode())
        hold_and_renew(layout)
        assert holder(layout) is None
    with Lock(layout, "first") as lock:
        layout.write_bytes(LOCK, this_process("other", timedelta(60)).to_json().encode())
        with pytest.raises(RunError, match="run other"):
            lock.require()


def test_a_renewal_whose_answer_was_lost_is_no_takeover(
    layout: Layout, store: ConditionalStore
) -> None:
    with Lock(layout, "first") as lock:
        store.deaf = True
        lock.require()
        assert not store.deaf
        lock.require()
        layout.write_bytes(LOCK, this_process("other", timedelta(60)).to_json().encode())
        with pytest.raises(RunError, match="run other"):
            lock.require()
