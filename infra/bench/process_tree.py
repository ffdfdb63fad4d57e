"""The memory of a run's whole process tree, by group of processes. Linux only.

What processes hold: the anonymous and file-backed pages of each (PSS, so what processes share
counts once), and what shared memory holds: the object store's file and the renderers' canvases,
each counted once at its allocated size whoever has it mapped.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

MARKER = "PAGELAKE_BENCH_RUN"
"""The environment variable that marks the processes of a run, see `ProcessTree`."""


@dataclass(frozen=True)
class Sample:
    """Bytes in use at one moment, by group of processes."""

    at_s: float
    groups: Counter[str]

    @property
    def total(self) -> int:
        return sum(self.groups.values())


@dataclass
class ProcessTree:
    """The living processes of a run, found by parentage and by a mark in the environment.

    The mark finds processes that have lost their parent; some overwrite their environment with a
    title later, so a process once found is kept.
    """

    root: int
    mark: str
    _known: dict[int, str] = field(default_factory=dict)

    def pids(self) -> list[int]:
        """Return the living processes."""
        parents: dict[int, int] = {}
        starts: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _read(entry / "stat").rpartition(")")[2].split()
                if fields:
                    parents[int(entry.name)] = int(fields[1])
                    starts[int(entry.name)] = fields[19]
        self._known = {p: s for p, s in self._known.items() if starts.get(p) == s}
        for pid in parents.keys() - self._known.keys():
            if pid == self.root or self.mark in _read(Path(f"/proc/{pid}/environ")):
                self._known[pid] = starts[pid]
        for pid in parents:
            line, ancestor = [pid], pid
            while (ancestor := parents.get(ancestor, 0)) and ancestor not in self._known:
                line.append(ancestor)
            if ancestor:
                self._known.update((p, starts[p]) for p in line)
        return sorted(self._known)


def take_sample(pids: list[int], at_s: float) -> Sample:
    """Read what the processes hold now."""
    groups: Counter[str] = Counter()
    shared: dict[tuple[int, int], int] = {}
    for pid in pids:
        rollup = dict(
            re.findall(r"^(\w+): +(\d+) kB$", _read(Path(f"/proc/{pid}/smaps_rollup")), re.M)
        )
        private = int(rollup.get("Pss_Anon", 0)) + int(rollup.get("Pss_File", 0))
        groups[_group(pid)] += private << 10
        shared.update(shared_files(pid))
    groups["shared memory (object store, canvases)"] = sum(shared.values())
    return Sample(at_s, groups)


def shared_files(pid: int) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield ((device, inode), allocated bytes) of the shared-memory files that a process holds."""
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for link in links:
        try:
            if str(link.readlink()).startswith(("/dev/shm/", "/memfd:")):
                status = link.stat()
                yield (status.st_dev, status.st_ino), status.st_blocks * 512
        except OSError:
            continue


def _group(pid: int) -> str:
    command = _read(Path(f"/proc/{pid}/cmdline")).replace("\0", " ").strip()
    for name, pattern in (
        ("renderer children", r"pipeline\.render\.child"),
        ("model process", r"pipeline\.runners\.model_process"),
        ("driver", r"pipeline\.cli"),
        ("raylet", r"^\S*/raylet/raylet"),
        ("gcs_server", r"gcs_server"),
        ("ray agents and monitors", r"ray/(_private|dashboard|autoscaler)/.*(agent|monitor|main)"),
    ):
        if re.search(pattern, command):
            return name
    # A worker's title is "ray::" and what it runs now, so workers are told apart by actor or task.
    if match := re.match(r"ray::(_MapWorker|MapWorker|\w+)", command):
        return "actor" if "MapWorker" in match[1] else "task workers"
    return "other" if command else "starting or ending"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
