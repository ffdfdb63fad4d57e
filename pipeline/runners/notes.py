"""Notes of what each process of this machine is at, in small files that outlive their process.

::

    {tmp}/pagelake-{uid}/{output}/notes/{run}/{process}.{n}    what a thread is at, while it is
    {tmp}/pagelake-{uid}/{output}/dead/{stage}.{key}.{end}.{process}.{n}.{serial}
                                                               an item that brought a process down

A note that its process left behind with an item in it is moved to `dead/`. Renaming is the claim:
of several processes that try, one succeeds. Names hold all that is counted, so what a process
writes to a file that has been moved already does no harm. What was under way when a whole run was
killed is charged once, in how many processes it may have been: its grave ends in the run alone.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import shutil
import stat
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from pathlib import Path

from pipeline.errors import RunError
from pipeline.processes import Process

_SIZE = 1024
_HEAD = struct.Struct("<QddIH")  # serial (0: idle), since, allowed seconds, attempt, bytes of text
_SERIAL = struct.Struct("<Q")
_ROOM = _SIZE - _HEAD.size


class End(StrEnum):
    """How an item brought its process down."""

    CRASH = "crash"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Item:
    """Something under way, as its note says. `since` is on the clock of `time.monotonic`."""

    note: Path
    serial: int
    stage: str
    key: str
    label: str
    since: float
    allowed_s: float
    attempt: int

    @property
    def process(self) -> Process:
        """Whose it is."""
        return _process_of(self.note)

    @property
    def age_s(self) -> float:
        """Seconds that it has been under way."""
        return time.monotonic() - self.since

    def __str__(self) -> str:
        again = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        return f"{self.label} in stage {self.stage} for {self.age_s:.0f} s{again}"


def key_of(stage: str, key: str) -> str:
    """Return the short name that `key` has in notes of a stage."""
    text = f"{stage}\0{key}".encode(errors="backslashreplace")
    return hashlib.blake2b(text, digest_size=12).hexdigest()


class Note:
    """One thread's note. Rewritten for every item, in memory that the kernel keeps: no call."""

    def __init__(self, path: Path) -> None:
        """Raises OSError if the file cannot be made."""
        with path.open("xb+") as file:
            file.write(bytes(_SIZE))  # a hole that a full disk cannot fill would be a fatal signal
            file.flush()
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self._serial = 0

    def begin(self, stage: str, key: str, label: str, allowed_s: float, attempt: int) -> None:
        """Write down what is begun now. The serial is written last and cleared first."""
        self.end()
        self._serial += 1
        text = f"{stage}\0{key}\0{_printable(label)}".encode(errors="replace")[:_ROOM]
        self._map[_HEAD.size : _HEAD.size + len(text)] = text
        now = time.monotonic()
        _HEAD.pack_into(self._map, 0, 0, now, allowed_s, attempt, len(text))
        _SERIAL.pack_into(self._map, 0, self._serial)

    def end(self) -> None:
        """Write down that it is over."""
        _SERIAL.pack_into(self._map, 0, 0)


class Notes:
    """The notes about one output, of all processes of this user on this machine."""

    def __init__(self, output: str, run_id: str = "run") -> None:
        """Make the folder of a run's own notes; those of others are looked after as well.

        Raises
        ------
        RunError
            If a folder of that name is not this user's alone.
        """
        home = Path(tempfile.gettempdir()) / f"pagelake-{os.getuid()}"
        _make_private(home)
        self.folder = home / hashlib.blake2b(output.encode(), digest_size=12).hexdigest()
        self._notes = self.folder / "notes"
        self._dead = self.folder / "dead"
        self._own = self._notes / run_id
        for folder in (self.folder, self._notes, self._own, self._dead):
            folder.mkdir(parents=True, exist_ok=True)
        self._process = Process.current()

    def new(self) -> Note:
        """Make a note for the thread that calls."""
        return Note(self._own / f"{self._process}.{next(_numbers)}")

    def look(self) -> list[Item]:
        """Return what living processes are at, oldest first.

        Items that processes were at when they went are put on record.
        """
        living = []
        for path in self._listed():
            process, item = _process_of(path), _read(path)
            if not process.gone:
                living += [] if item is None else [item]
                continue
            # Read again: it may have written until it went.
            item = _read(path)
            with suppress(FileNotFoundError):  # another process was first
                if item is None:
                    path.unlink()
                else:
                    path.rename(self._grave(item, End.CRASH))
        return sorted(living, key=lambda item: item.since)

    def condemn(self, item: Item) -> bool:
        """Put a timeout on the item's record; False if it is over, or somebody else did."""
        grave = self._grave(item, End.TIMEOUT)
        try:
            item.note.rename(grave)
        except FileNotFoundError:
            return False
        if (now := _read(grave)) is not None and now.serial == item.serial:
            return True
        grave.rename(item.note)
        return False

    def record(self) -> dict[str, Counter[End]]:
        """Return how often each key has brought a process down, and in which ways."""
        found: dict[str, Counter[End]] = {}
        for path in _inside(self._dead):
            if match := _GRAVE.match(path.name):
                found.setdefault(match["key"], Counter())[End(match["end"])] += 1
        return found

    def forget(self, *, record: bool) -> None:
        """Remove what this run's processes are at, and with `record` all that is known."""
        shutil.rmtree(self.folder if record else self._own, ignore_errors=True)
        with suppress(OSError):  # there is a record to keep, or another run
            for folder in (self._notes, self._dead, self.folder):
                folder.rmdir()

    @property
    def kept(self) -> bool:
        """False once the notes have been removed."""
        return self._own.is_dir()

    def _listed(self) -> Iterator[Path]:
        for folder in _inside(self._notes):
            yield from (path for path in _inside(folder) if _NAME.fullmatch(path.name))

    def _grave(self, item: Item, end: End) -> Path:
        run = item.note.parent
        whose = f"{item.note.name}.{item.serial}" if run == self._own else run.name
        return self._dead / f"{item.stage}.{item.key}.{end}.{whose}"


_numbers = count()

_NAME = re.compile(r"\d+_[^.]*\.\d+")
_GRAVE = re.compile(r"\w+\.(?P<key>[0-9a-f]+)\.(?P<end>crash|timeout)\.")


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder; nothing if it is gone, or none."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _make_private(folder: Path) -> None:
    """Make a folder in a place that all may write to: nobody else may have put it there."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RunError(f"{folder} is not a folder of this user alone; remove it, or set TMPDIR")


def _read(path: Path) -> Item | None:
    """Return what a note says is under way."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read(_SIZE)
            file.seek(0)
            serial_now = file.read(_SERIAL.size)
    except FileNotFoundError:
        return None
    if len(data) < _SIZE or data[: _SERIAL.size] != serial_now:  # it is being written
        return None
    serial, since, allowed_s, attempt, length = _HEAD.unpack_from(data)
    if serial == 0:
        return None
    text = data[_HEAD.size : _HEAD.size + length].decode(errors="replace")
    stage, key, label = text.split("\0", 2)
    return Item(path, serial, stage, key, label, since, allowed_s, attempt)


def _process_of(note: Path) -> Process:
    return Process.parse(note.name.partition(".")[0])


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)
