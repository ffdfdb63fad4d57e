"""Who may write to an output: one run at a time, and the next one after a death."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pyarrow import fs

from pipeline.errors import OutputError, RunError
from pipeline.lake import lock as lock_module
from pipeline.lake.holder import this_process
from pipeline.lake.layout import LOCK, Layout
from pipeline.lake.lock import Lock, holder
from pipeline.processes import Process

TAKES_IT = """
import sys
from pipeline.errors import OutputError
from pipeline.lake.layout import Layout
from pipeline.lake.lock import Lock
print("ready", flush=True)
sys.stdin.readline()
try:
    with Lock(Layout.open(sys.argv[1]), "other"):
        print("won", flush=True)
        sys.stdin.read()
except OutputError as error:
    print("told", flush=True)
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout.open(str(tmp_path / "out"))
    made.prepare()
    return made


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setattr(lock_module, "_SETTLE_S", 0.05)
    made = Layout("test://out", fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "out")
    made.prepare()
    return made


def taker(layout: Layout) -> subprocess.Popen[str]:
    """Start a process that takes the lock when it gets a line, and holds it to the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", TAKES_IT, layout.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def leave_behind(layout: Layout, **changes: object) -> None:
    """Write the lock of a run that is not there any more."""
    mine = this_process("old", timedelta(seconds=60))
    layout.write_bytes(LOCK, replace(mine, **changes).to_json().encode())  # type: ignore[arg-type]


def test_a_second_run_is_told_who_holds_the_output(layout: Layout) -> None:
    told = r"in use since 20.* UTC by run first \(process \d+ on .*\); wait .* after 20.* UTC\)"
    with Lock(layout, "first"):
        with pytest.raises(OutputError, match=told), Lock(layout, "second"):
            pass
        assert json.loads(layout.read_bytes(LOCK))["run_id"] == "first"
    assert not layout.exists(LOCK)
    with Lock(layout, "second"):
        assert layout.exists(LOCK)


def test_a_lock_is_given_back_after_an_error(layout: Layout) -> None:
    with pytest.raises(KeyboardInterrupt), Lock(layout, "first"):
        raise KeyboardInterrupt
    assert not layout.exists(LOCK)


def test_a_killed_holder_is_taken_over_at_once(layout: Layout) -> None:
    process = taker(layout)
    go(process)
    assert answer(process) == "won"
    with pytest.raises(OutputError, match="in use"), Lock(layout, "second"):
        pass
    process.send_signal(signal.SIGKILL)
    # Not waited for yet: dead and not buried counts as gone.
    found, deadline = holder(layout), time.monotonic() + 10
    assert found is not None
    while not found.is_over and time.monotonic() < deadline:
        time.sleep(0.01)
    with Lock(layout, "second"):
        pass
    process.communicate()


def test_a_later_process_with_the_same_number_is_not_the_holder(layout: Layout) -> None:
    leave_behind(layout, process=str(replace(Process.current(), started="1")))
    with Lock(layout, "second"):
        pass


@pytest.mark.parametrize("where", [{"boot": "another"}, {"namespace": "another"}, {"boot": ""}])
def test_another_machines_holder_is_believed_until_its_lease_is_out(
    layout: Layout, where: dict[str, str]
) -> None:
    process = str(replace(Process.current(), **where, started="1"))
    leave_behind(layout, process=process)
    with pytest.raises(OutputError, match="in use"), Lock(layout, "second"):
        pass
    leave_behind(layout, process=process, expires=datetime.now(UTC))
    with Lock(layout, "second"):
        pass


def test_a_lease_is_renewed_while_the_run_goes_on(layout: Layout) -> None:
    with Lock(layout, "first", lease_s=1.0) as lock:
        time.sleep(1.2)
        with pytest.raises(OutputError, match="in use"), Lock(layout, "second"):
            pass
        lock.require()


def test_of_processes_that_race_to_take_over_one_wins(layout: Layout) -> None:
    leave_behind(layout, process=str(replace(Process.current(), pid=2**22 - 1)))
    takers = [taker(layout) for _ in range(3)]
    for process in takers:
        go(process)
    assert sorted(answer(process) for process in takers) == ["told", "told", "won"]
    for process in takers:
        process.communicate()


@pytest.mark.parametrize("left_behind", [False, True])
def test_of_threads_that_race_for_a_lock_one_wins(layout: Layout, left_behind: bool) -> None:
    if left_behind:
        leave_behind(layout, process=str(replace(Process.current(), pid=2**22 - 1)))
    won, start, end = [], threading.Barrier(16), threading.Barrier(16)

    def take() -> None:
        start.wait()
        try:
            with Lock(layout, "x"):
                won.append(1)
                end.wait()
        except OutputError:
            end.wait()

    threads = [threading.Thread(target=take) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_on_a_store_the_last_of_two_that_began_together_has_it(
    store: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(_: float) -> None:
        leave_behind(store)

    with monkeypatch.context() as patch:
        patch.setattr(lock_module.time, "sleep", other)
        with pytest.raises(OutputError, match=r"in use since .* by run old"), Lock(store, "first"):
            pass
    assert holder(store) is not None
    store.delete(LOCK)
    with Lock(store, "first") as lock:
        lock.require()
    assert holder(store) is None


def test_a_store_that_goes_away_while_the_lock_is_taken_is_not_blocked_by_it(
    store: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bytes:
        raise OSError("connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(
            lock_module.time, "sleep", lambda _: patch.setattr(Layout, "read_bytes", away)
        )
        with pytest.raises(OutputError, match="cannot be written"), Lock(store, "first"):
            pass
    assert store.exists(LOCK)
    with Lock(store, "second"):
        pass


def test_a_holder_that_was_replaced_may_do_nothing_more(layout: Layout) -> None:
    with Lock(layout, "first") as lock:
        leave_behind(layout)
        with pytest.raises(RunError, match=r"lost its lock: run old \(process .* took it over"):
            lock.require()
        assert lock.lost
    assert layout.exists(LOCK)  # the other's


def test_a_holder_whose_lock_was_deleted_may_do_nothing_more(layout: Layout) -> None:
    with Lock(layout, "first", lease_s=0.3) as lock:
        layout.delete(LOCK)
        deadline = time.monotonic() + 5
        while not lock.lost and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock.lost
        with pytest.raises(RunError, match="it was deleted"):
            lock.require()


def test_a_store_that_is_away_costs_the_lock_only_when_the_lease_is_out(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> bytes:
        raise OSError("connection lost")

    with Lock(layout, "first", lease_s=0.5) as lock:
        monkeypatch.setattr(Layout, "read_bytes", away)
        lock.require()
        time.sleep(0.6)
        with pytest.raises(RunError, match=r"could not be renewed \(connection lost\)"):
            lock.require()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": -1}'])
def test_a_damaged_lock_is_named(layout: Layout, text: str) -> None:
    layout.write_bytes(LOCK, text.encode())
    with (
        pytest.raises(OutputError, match="_pagelake/lock is damaged; delete it"),
        Lock(layout, "x"),
    ):
        pass
