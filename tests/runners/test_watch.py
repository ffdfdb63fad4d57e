"""Notes, their record, and who is given up: in processes of their own, without a run."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import processes
from pipeline.errors import ItemError, RunError
from pipeline.job import Limits
from pipeline.processes import Process
from pipeline.records import FailureKind
from pipeline.runners.notes import Notes
from pipeline.runners.progress import RunProgress
from pipeline.runners.watch import Watch, overdue

Worker = Callable[..., "subprocess.Popen[str]"]

BEGIN = """
import ctypes, time
from pipeline.job import Limits
from pipeline.runners.notes import Notes
from pipeline.runners.watch import Watch
watch = Watch(Notes("output"), Limits(item_s={item_s}))
with watch.item("parse", "one", "page 1 of a.pdf"):
    print("begun", flush=True)
    {does}
print("ended", flush=True)
time.sleep(60)
"""
HANGS = "time.sleep(60)"
HOLDS_THE_LOCK = "ctypes.PyDLL(None).sleep(60)"


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    """Start processes that begin an item, and wait until they have; notes lie in the test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    started: list[subprocess.Popen[str]] = []

    def start(does: str, item_s: float = 60.0) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", BEGIN.format(does=does, item_s=item_s)]
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def tried(watch: Watch) -> ItemError | None:
    try:
        with watch.item("parse", "one", "page 1 of a.pdf"):
            return None
    except ItemError as error:
        return error


def test_an_item_is_given_up_once_it_has_ended_enough_processes(worker: Worker) -> None:
    watch = Watch(Notes("output"), Limits(attempts=2))
    for _ in range(2):
        watch.refresh()
        assert tried(watch) is None
        end(worker(HANGS))
    watch.refresh()
    error = tried(watch)
    assert error is not None
    assert (error.kind, error.attempt) == (FailureKind.STAGE_CRASH, 2)
    assert "2 died" in error.message
    with watch.item("encode", "one", "the same page elsewhere"), watch.item("parse", "two", ""):
        pass


def test_a_run_that_was_killed_whole_is_charged_once(worker: Worker) -> None:
    """As many workers as there are may have the same document open."""
    for process in [worker(HANGS) for _ in range(3)]:
        end(process)
    watch = Watch(Notes("output", "the next"), Limits(attempts=2))
    assert tried(watch) is None


def test_a_run_that_ends_leaves_another_ones_notes_alone(worker: Worker) -> None:
    other, living = Notes("output", "other"), worker(HANGS)
    other.forget(record=False)
    assert [item.process.pid for item in Notes("output").look()] == [living.pid]


def test_files_of_others_among_the_notes_are_no_notes(worker: Worker) -> None:
    notes = Notes("output")
    (notes.folder / "notes" / "run" / ".nfs0001").touch()
    (notes.folder / "notes" / "stray").touch()
    (notes.folder / "dead" / "stray").touch()
    assert (notes.look(), notes.record()) == ([], {})


def test_of_many_that_find_a_death_one_counts_it(worker: Worker) -> None:
    end(worker(HANGS))
    watches = [Watch(Notes("output"), Limits(attempts=2)) for _ in range(3)]
    assert tried(watches[-1]) is None


def test_the_living_and_the_idle_are_not_counted(worker: Worker) -> None:
    living, idle = worker(HANGS), worker("pass")
    assert idle.stdout is not None
    assert idle.stdout.readline() == "ended\n"
    end(idle)
    notes = Notes("output")
    assert tried(Watch(notes, Limits(attempts=1))) is None
    assert [item.process.pid for item in notes.look()] == [living.pid]


def test_a_process_that_got_a_dead_ones_id_is_another() -> None:
    mine = Process.current()
    assert not mine.gone
    assert Process.parse(str(mine)) == mine
    assert Process(mine.pid, mine.started + "1", mine.boot, mine.namespace).gone
    assert Process(mine.pid, mine.started, "other", mine.namespace).gone
    assert not Process(mine.pid, mine.started + "1", mine.boot, "other").gone


@pytest.mark.parametrize("does", [HANGS, HOLDS_THE_LOCK])
def test_what_does_not_end_is_ended_from_outside(worker: Worker, does: str) -> None:
    process = worker(does, item_s=0.5)
    watch = Watch(Notes("output"), Limits(item_s=60, attempts=1))
    watch.start()
    assert process.wait(10) == -signal.SIGKILL
    watch.close()
    watch.refresh()
    error = tried(watch)
    assert error is not None
    assert error.kind is FailureKind.STAGE_TIMEOUT


def test_a_process_ends_itself_in_its_own_way(worker: Worker) -> None:
    ended: list[str] = []
    watch = Watch(Notes("output"), Limits(item_s=0.1), lambda item: ended.append(item.label))
    watch.start()
    with watch.item("parse", "one", "page 1 of a.pdf"):
        time.sleep(2.5)
    watch.close()
    assert ended == ["page 1 of a.pdf"]


def test_time_that_the_machine_slept_does_not_count(worker: Worker) -> None:
    notes = Notes("output")
    with Watch(notes, Limits(item_s=60)).item("parse", "one", "page 1"):
        item = notes.look()[0]
    assert not overdue(item, item.since + 59, awake_since=0)
    assert overdue(item, item.since + 61, awake_since=0)
    assert not overdue(item, item.since + 5000, awake_since=item.since + 4990)


def test_an_item_that_went_on_is_not_condemned(worker: Worker) -> None:
    notes = Notes("output")
    watch = Watch(notes, Limits(attempts=1))
    with watch.item("parse", "one", "page 1"):
        seen = notes.look()[0]
    with watch.item("parse", "two", "page 2"):
        assert not notes.condemn(seen)
        assert [item.label for item in notes.look()] == ["page 2"]
    watch.refresh()
    assert tried(watch) is None


def test_what_a_failing_run_ends_itself_is_not_blamed(worker: Worker, tmp_path: Path) -> None:
    process = worker(HANGS)
    with pytest.raises(RunError), Watch(Notes("output"), Limits()).guard(lambda *_: None):
        raise RunError("the model does not load")
    assert list(tmp_path.glob("pagelake-*/*")) == []
    end(process)
    assert tried(Watch(Notes("output"), Limits(attempts=1))) is None


def test_a_folder_that_others_may_write_to_is_refused(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / f"pagelake-{os.getuid()}").mkdir(mode=0o777)
    (tmp_path / f"pagelake-{os.getuid()}").chmod(0o777)
    with pytest.raises(RunError, match="this user alone"):
        Notes("output")


def test_a_link_in_place_of_the_folder_is_refused(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"pagelake-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="this user alone"):
        Notes("output")


def test_a_stalled_run_says_what_it_is_at(worker: Worker) -> None:
    notes = Notes("output")
    watch = Watch(notes, Limits())
    said = io.StringIO()
    progress = RunProgress(Console(file=said, width=400), stall_s=0.2)
    with watch.item("encode", "one", "page 3 of a\x1b[31m.pdf"):
        progress.look(notes.look())
        assert said.getvalue() == ""
        time.sleep(0.2)
        progress.look(notes.look())
        progress.look(notes.look())
    assert said.getvalue() == (
        "nothing finished for 0 s; 1 under way on this machine\n"
        "  page 3 of a?[31m.pdf in stage encode for 0 s\n"
    )


def test_without_proc_the_start_is_asked_of_ps() -> None:
    assert processes._started_elsewhere(os.getpid()) == processes._started_elsewhere(os.getpid())
    assert processes._started_elsewhere(2**22 + 1) is None
