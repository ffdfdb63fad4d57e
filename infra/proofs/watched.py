"""A run beside which its CPU time and memory are read, a line every so often. Linux only."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from model_share import Meter
from process_tree import MARKER, ProcessTree, shared_files

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Moment:
    """How a run stood: commits so far, CPU seconds by kind of process, and the driver's memory."""

    at: datetime
    commits: int
    spent: dict[str, float]
    driver_bytes: int
    store_bytes: int
    """Of the object store: what of its file is in memory, which never becomes less."""
    machine: tuple[float, float]
    """CPU seconds of all cores, and those of them that were idle."""

    def since(self, before: Moment) -> dict[str, float]:
        """Return the CPU seconds spent since, by kind of process."""
        return {kind: spent - before.spent.get(kind, 0.0) for kind, spent in self.spent.items()}

    def idle_since(self, before: Moment) -> float:
        """Return the share of the machine's CPU time since that nothing used."""
        total, idle = (now - then for now, then in zip(self.machine, before.machine, strict=True))
        return idle / total if total else 0.0


@dataclass(frozen=True)
class Watched:
    """A run that has ended well, and how it stood meanwhile."""

    started: datetime
    wall_s: float
    summary: dict[str, Any]
    moments: list[Moment] = field(repr=False)

    def at(self, when: datetime) -> Moment:
        """Return the first moment that is not before `when`, or the last one."""
        place = bisect_left(self.moments, when, key=lambda moment: moment.at)
        return self.moments[min(place, len(self.moments) - 1)]


def watch(job: Path, output: Path, every_s: float = 0.5) -> Watched:
    """Run a job to its end. Exits if the run does not end as a finished run does."""
    mark = secrets.token_hex(8)
    command = [sys.executable, "-m", "pipeline.cli", "run", str(job), "--json"]
    out, log = job.with_suffix(".out"), job.with_suffix(".log")
    started, clock, moments = datetime.now(UTC), time.monotonic(), []
    with out.open("w") as stdout, log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=stdout, stderr=stderr, env=os.environ | {MARKER: mark}
        )
        meter = Meter(ProcessTree(process.pid, f"{MARKER}={mark}"))
        while process.poll() is None:
            moments.append(_moment(process.pid, meter, output / "_pagelake" / "commits"))
            time.sleep(every_s)
    wall_s = time.monotonic() - clock
    if process.returncode not in (0, 3):
        raise SystemExit(f"the run exited {process.returncode}:\n{log.read_text()[-3000:]}")
    return Watched(started, wall_s, json.loads(out.read_text()), moments)


def _moment(driver: int, meter: Meter, commits: Path) -> Moment:
    meter.read()
    return Moment(
        at=datetime.now(UTC),
        commits=sum(1 for _ in os.scandir(commits)) if commits.is_dir() else 0,
        spent=dict(meter.spent),
        driver_bytes=_own_bytes(driver),
        store_bytes=_store_bytes(meter.pids("raylet")),
        machine=_machine(),
    )


def _own_bytes(pid: int) -> int:
    """Return the anonymous memory of a process: what it shares with nobody."""
    return _field(Path(f"/proc/{pid}/status"), "RssAnon") << 10


def _store_bytes(pids: list[int]) -> int:
    """Return what the object store takes: Ray keeps it in one file, which all workers map."""
    shared = {file: size for pid in pids for file, size in shared_files(pid)}
    return max(shared.values(), default=0)


def _field(path: Path, name: str) -> int:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)


def _machine() -> tuple[float, float]:
    ticks = [int(tick) for tick in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return sum(ticks) / _TICKS, (ticks[3] + ticks[4]) / _TICKS
