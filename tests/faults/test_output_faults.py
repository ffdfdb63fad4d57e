"""Outputs and inputs that fail while a run is on: one line, nothing half done, and a way on."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from pyarrow import fs
from pyarrow.fs import FileSystemHandler, PyFileSystem

from pipeline import cli, terminal
from pipeline.lake.layout import Layout
from pipeline.runners.progress import RunProgress

JOB = """
input: {{paths: [{folder}]}}
task: ocr
schema: text.v1
model: {{family: fake, name: "fake?edge=224"}}
output: {{uri: {output}}}
"""

Run = Callable[..., int]


class Disk:
    """A small disk of its own, in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.folder], check=True)

    def fill(self) -> None:
        """Leave not one byte free, and no room for a file more."""
        with (self.folder / "filler").open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def enlarge(self) -> None:
        self.remount("size=64m")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this user may not mount a disk")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def pile(tmp_path: Path, demo: Path) -> Path:
    """A folder of 18 pages: two commits."""
    folder = tmp_path / "in"
    folder.mkdir()
    picture = (demo / "documents" / "image-01.png").read_bytes()
    for number in range(18):
        (folder / f"{number:02}.png").write_bytes(picture + bytes([number]))
    return folder


@pytest.fixture
def pagelake(tmp_path: Path, pile: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the pile into `output` as the command line does; return the exit code."""

    def go(output: Path | str, runner: str = "local") -> int:
        job = tmp_path / "job.yaml"
        job.write_text(JOB.format(folder=pile, output=output))
        arguments = ["pagelake", "run", str(job), "--runner", runner]
        monkeypatch.setattr(sys, "argv", arguments)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return go


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return the one line that the last run complained in."""

    def line() -> str:
        printed = capsys.readouterr().err
        assert "Traceback" not in printed
        (found,) = [one for one in printed.splitlines() if one.startswith("pagelake: ")]
        return found

    return line


@pytest.fixture
def when(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Have something happen, once, when a run comes to a step of `RunProgress`."""

    def set_up(step: str, happens: Callable[[], object]) -> None:
        real = getattr(RunProgress, step)
        left = [happens]

        def first(self: RunProgress, *arguments: Any) -> None:
            real(self, *arguments)
            if left:
                left.pop()()

        monkeypatch.setattr(RunProgress, step, first)

    return set_up


When = Callable[[str, Callable[[], object]], None]
Told = Callable[[], str]


def states(output: Path) -> list[str]:
    files = [str(path) for path in (output / "documents").glob("*.parquet")]
    return sorted(ds.dataset(files).to_table(columns=["state"])["state"].to_pylist())


def unfinished(output: Path) -> list[Path]:
    return [path for path in output.rglob("*.tmp") if path.is_file()]


@pytest.mark.parametrize(
    ("step", "runner"),
    [("planning", "local"), ("committed", "local"), ("assembling", "local"), ("starting", "ray")],
)
def test_a_full_disk_ends_a_run_that_goes_on_with_more_room(
    disk: Disk,
    pagelake: Run,
    told: Told,
    when: When,
    step: str,
    runner: str,
    request: pytest.FixtureRequest,
) -> None:
    if runner == "ray":
        request.getfixturevalue("ray_session")
    output = disk.folder / "out"
    when(step, disk.fill)
    assert pagelake(output, runner) == 1
    line = told()
    assert "No space left on device" in line
    assert str(output) in line
    assert unfinished(output) == []
    disk.enlarge()
    assert pagelake(output, runner) == 0
    assert states(output) == ["ok"] * 18


def test_a_full_temporary_folder_is_named(
    tmp_path: Path, disk: Disk, pagelake: Run, told: Told, when: When, monkeypatch: Any
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    when("assembling", disk.fill)
    assert pagelake(tmp_path / "out") == 1
    line = told()
    assert "No space left on device" in line
    assert str(disk.folder) in line
    assert "TMPDIR" in line
    (disk.folder / "filler").unlink()
    assert pagelake(tmp_path / "out") == 0


def test_a_disk_that_may_only_be_read_is_refused_at_once(
    disk: Disk, pagelake: Run, told: Told
) -> None:
    disk.remount("ro")
    assert pagelake(disk.folder / "out") == 2
    assert "cannot be written" in told()


@pytest.mark.parametrize("step", ["committed", "assembling"])
def test_a_disk_that_turns_read_only_ends_a_run_that_goes_on_later(
    disk: Disk, pagelake: Run, told: Told, when: When, step: str
) -> None:
    output = disk.folder / "out"
    when(step, lambda: disk.remount("ro"))
    assert pagelake(output) == 1
    line = told()
    assert "Read-only file system" in line
    assert str(output) in line
    disk.remount("rw")
    assert pagelake(output) == 0
    assert states(output) == ["ok"] * 18


@pytest.mark.parametrize("step", ["starting", "committed"])
def test_an_input_that_goes_away_fails_its_documents_only(
    tmp_path: Path, pile: Path, pagelake: Run, when: When, step: str
) -> None:
    away = tmp_path / "away"
    when(step, lambda: pile.rename(away))
    assert pagelake(tmp_path / "out") == 3
    done = 0 if step == "starting" else 16
    assert states(tmp_path / "out") == ["failed"] * (18 - done) + ["ok"] * done
    away.rename(pile)
    assert pagelake(tmp_path / "out") == 0
    assert states(tmp_path / "out") == ["ok"] * 18


class Failing:
    """A store that goes away when `left` operations are done, over a local folder."""

    def __init__(self) -> None:
        self.left = math.inf
        self._local = fs.LocalFileSystem()

    def call(self, operation: str, *arguments: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise OSError("AWS Error NETWORK_CONNECTION:\n the store is away")
        return getattr(self._local, operation)(*arguments, **named)

    def put(self, path: str) -> Any:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return self.call("open_output_stream", path)

    def filesystem(self) -> PyFileSystem:
        """Return a filesystem of pyarrow's; one that is not local, so all goes through it."""
        plain = {
            name: lambda _, *arguments, _name=name: self.call(_name, *arguments)
            for name in FileSystemHandler.__abstractmethods__
        }
        special = {
            "get_type_name": lambda _: "failing",
            "normalize_path": lambda _, path: path,
            "get_file_info_selector": lambda _, selector: self.call("get_file_info", selector),
            "create_dir": lambda _, path, deep: self.call("create_dir", path, recursive=deep),
            "open_output_stream": lambda _, path, _more: self.put(path),
        }
        kind = type("Handler", (FileSystemHandler,), plain | special)
        return PyFileSystem(kind())


@pytest.mark.parametrize("step", ["planning", "committed", "assembling"])
def test_a_store_that_goes_away_is_told_in_one_line(
    tmp_path: Path,
    pagelake: Run,
    told: Told,
    when: When,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    store = Failing()
    layout = Layout("far://out", store.filesystem(), str(tmp_path / "far"))
    monkeypatch.setattr(Layout, "open", lambda *_: layout)
    monkeypatch.setattr("pipeline.lake.lock._SETTLE_S", 0)
    store.left = 3
    assert pagelake("far://out") == 2
    assert "cannot be written (AWS Error NETWORK_CONNECTION: the store is away)" in told()
    store.left = math.inf
    when(step, lambda: setattr(store, "left", 5))
    assert pagelake("far://out") == 1
    assert "the run failed: AWS Error NETWORK_CONNECTION: the store is away" in told()
    store.left = math.inf
    assert pagelake("far://out") == 0
    assert states(tmp_path / "far") == ["ok"] * 18


def test_a_cut_file_of_pages_is_named_and_done_again_without_it(
    tmp_path: Path, pagelake: Run, told: Told, when: When, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"

    def cut() -> None:
        (file,) = (output / "pages").glob("*.parquet")
        file.write_bytes(file.read_bytes()[:-100])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(terminal.os, "_exit", sys.exit)
        when("committed", cut)
        assert pagelake(output) == 130
    assert not (output / "_pagelake" / "lock").exists()
    told()
    assert pagelake(output) == 2
    (file,) = (output / "pages").glob("*.parquet")
    assert f"pages/{file.name} is damaged" in told()
    file.unlink()
    assert pagelake(output) == 0
    assert states(output) == ["ok"] * 18
