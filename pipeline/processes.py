"""Which process is which, on this machine: a process id alone is given away again."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

_EXITING = 0x4  # PF_EXITING of linux/sched.h


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from all others: by its start, the machine's, and its namespace of ids."""

    pid: int
    started: str
    boot: str
    namespace: str

    @classmethod
    def current(cls) -> Self:
        """Return this process."""
        return cls(os.getpid(), _started(os.getpid()) or "", _boot(), _namespace())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `str()` back. Raises ValueError if it is none."""
        pid, started, boot, namespace = text.split("_")
        return cls(int(pid), started, boot, namespace)

    def __str__(self) -> str:
        return f"{self.pid}_{self.started}_{self.boot}_{self.namespace}"

    @property
    def near(self) -> bool:
        """True if its id means here what it meant to the process itself."""
        return self.boot == _boot() and self.namespace == _namespace()

    @property
    def gone(self) -> bool:
        """True if it has ended for certain. One in another container is not known to have."""
        if self.boot != _boot():
            return True
        if not self.near:
            return False
        started = _started(self.pid)
        return started is None or started not in ("", self.started)


def how_it_ended(status: int) -> str:
    """Say in words what a process's exit status tells, as `subprocess` gives it."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"died of {signal.Signals(-status).name}"
    except ValueError:  # one without a name
        return f"died of signal {-status}"


def _started(pid: int) -> str | None:
    """Return when a process started, in units of the system's; None if it is gone or going.

    Nothing, if it is there and its start is not to be seen: /proc may hide what other users run.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        if not Path("/proc/self/stat").exists():
            return _started_elsewhere(pid)
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            return ""
        return "" if Path(f"/proc/{pid}").exists() else None
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX" or int(fields[6]) & _EXITING:
        return None
    return fields[19]


def _started_elsewhere(pid: int) -> str | None:
    """Ask ps, where there is no /proc: macOS."""
    command = ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    state, _, started = found.stdout.strip().partition(" ")
    if not started or state.startswith("Z"):
        return None
    return "".join(character for character in started if character.isalnum())


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return ""


@cache
def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        return ""
