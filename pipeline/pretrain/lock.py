"""One training a folder at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from pipeline.errors import OutputError


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
