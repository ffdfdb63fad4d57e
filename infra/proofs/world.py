"""A run by itself: what it leaves behind can be told. Linux only."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from process_tree import MARKER, ProcessTree

ENDED_S = 20
"""Seconds for all processes of a run to be gone after it."""

_PATIENCE_S = 900
_ROOMS = {"home": "HOME", "tmp": "TMPDIR", "ray": "RAY_TMPDIR"}


@dataclass(frozen=True)
class Run:
    """One `pagelake run`: how it ended, and the processes and files that it left behind."""

    status: int
    wall_s: float
    summary: dict[str, Any]
    left: list[str]


class World:
    """A home, a working folder and a place for temporary files, which a run should leave empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for room in (*_ROOMS, "cwd"):
            (folder / room).mkdir(parents=True)

    def run(
        self,
        job: Path,
        *arguments: str,
        environment: Mapping[str, str],
        meanwhile: Iterable[object] = (),
    ) -> Run:
        """Run a job to its end, and take steps of `meanwhile` all the time.

        Standard output and error go beside the job, to `.out` and `.log`. Exits if the run does not
        end, or not as a finished run does.
        """
        mark = secrets.token_hex(8)
        own = {variable: str(self._folder / room) for room, variable in _ROOMS.items()}
        command = [sys.executable, "-m", "pipeline.cli", "run", str(job), "--json", *arguments]
        out, log = job.with_suffix(".out"), job.with_suffix(".log")
        shared, started = _shared_memory(), time.monotonic()
        with out.open("w") as stdout, log.open("a") as stderr:
            process = subprocess.Popen(
                command,
                env={**os.environ, **own, **environment, MARKER: mark},
                cwd=self._folder / "cwd",
                stdout=stdout,
                stderr=stderr,
            )
            tree = ProcessTree(process.pid, f"{MARKER}={mark}")
            _follow(process, tree, iter(meanwhile))
        wall_s = time.monotonic() - started
        if process.returncode not in (0, 3):
            raise SystemExit(f"exit status {process.returncode}:\n{log.read_text()[-3000:]}")
        left = [*_living(tree), *self._strays(), *sorted(_shared_memory() - shared)]
        return Run(process.returncode, wall_s, json.loads(out.read_text()), left)

    def _strays(self) -> list[str]:
        """Return files outside of the output. Ray keeps its own logs, and a key in the home."""
        rooms = [self._folder / room for room in ("home", "cwd", "tmp")]
        found = [path for room in rooms for path in room.rglob("*") if not path.is_dir()]
        return [str(path) for path in found if path.parent != self._folder / "home" / ".ray"]


def _follow(
    process: subprocess.Popen[bytes], tree: ProcessTree, meanwhile: Iterator[object]
) -> None:
    started, looked = time.monotonic(), 0.0
    while process.poll() is None:
        now = time.monotonic()
        if now - started > _PATIENCE_S:
            process.kill()
            raise SystemExit(f"the run did not end in {_PATIENCE_S} s")
        if now - looked > 1:  # a process that is never seen alive is known by its mark alone
            tree.pids()
            looked = now
        next(meanwhile, None)
        time.sleep(0.01)


def _living(tree: ProcessTree) -> list[str]:
    """Return the processes of a run that do not end by themselves."""
    until = time.monotonic() + ENDED_S
    while (pids := tree.pids()) and time.monotonic() < until:
        time.sleep(0.2)
    return [f"process {pid} ({_command(pid)})" for pid in pids]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()[:100]
    except OSError:
        return "ending"


def _shared_memory() -> set[str]:
    """Return the object stores there; canvases have no name on Linux."""
    return {str(path) for path in Path("/dev/shm").glob("plasma*")}
