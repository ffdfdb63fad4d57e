"""Local folders that a training writes: one at a time, and results whole or not at all."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import OutputError


def output_folder(output: str) -> Path:
    """Make the folder that a training writes to. Raises OutputError if it cannot be."""
    folder = Path(output)
    if "://" in output:
        raise OutputError(f"output: '{output}' is no local folder; a training writes to one")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: '{folder}' cannot be made: {error.strerror}") from error
    return folder


def lock(folder: Path) -> IO[bytes]:
    """Return a file that holds the folder while it is open; the system lets go of it at any death.

    Raises OutputError if another process holds it.
    """
    file = (folder / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise OutputError(
            f"output: another training writes to '{folder}'; wait for it, or name another output"
        ) from error
    return file


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give the path to write a new folder at, which takes the place of an older one at the end.

    It is never written over: a run may have its weights mapped into memory.
    """
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for rest in (fresh, old):
        shutil.rmtree(rest, ignore_errors=True)
    yield fresh
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
