"""Machines for proofs of clusters: network namespaces joined by a bridge, each with an address.

Where the kernel refuses namespaces (no root), machines are loopback addresses instead: then what is
one machine's alone is told by process trees.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil


@dataclass
class Machine:
    """An address of its own, and the processes that were started there."""

    name: str
    address: str
    namespace: str | None
    started: list[psutil.Popen] = field(default_factory=list)

    def start(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> psutil.Popen:
        """Start a process on the machine."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        with log.open("ab") as file:
            process = psutil.Popen([*inside, *command], env=environment, stdout=file, stderr=file)
        self.started.append(process)
        return process

    def processes(self) -> list[psutil.Process]:
        """Return all that runs on the machine."""
        if self.namespace:
            found = _ip("netns", "pids", self.namespace).split()
            return [p for pid in found for p in _process(int(pid))]
        return [p for top in self.started for p in _tree(top)]

    def kill(self) -> int:
        """End all processes of the machine at once; return how many there were."""
        killed: dict[int, psutil.Process] = {}
        while alive := [p for p in self.processes() if p.pid not in killed]:
            for process in alive:
                with suppress(psutil.Error):
                    process.kill()
                killed[process.pid] = process
        psutil.wait_procs(list(killed.values()), timeout=30)
        for process in self.started:
            with suppress(psutil.Error, subprocess.TimeoutExpired):
                process.wait(5)
        return len(killed)


@dataclass(frozen=True)
class Network:
    """Machines, and the address `outside` of all of them, from where they are reached."""

    machines: tuple[Machine, ...]
    outside: str


@contextmanager
def network(names: Sequence[str]) -> Iterator[Network]:
    """Make machines and join them; end what runs on them and remove them."""
    mark = f"{os.getpid() % 10_000}"
    try:
        found = _namespaces(names, mark)
    except (OSError, subprocess.CalledProcessError):
        _remove(names, mark)
        found = Network(
            tuple(Machine(name, f"127.0.0.{n + 2}", None) for n, name in enumerate(names)),
            "127.0.0.1",
        )
    try:
        yield found
    finally:
        for machine in found.machines:
            machine.kill()
        if found.machines[0].namespace:
            _remove(names, mark)


def _namespaces(names: Sequence[str], mark: str) -> Network:
    subnet = f"10.{random.randint(200, 250)}.{random.randint(1, 250)}"
    bridge = f"plb{mark}"
    _ip("link", "add", bridge, "type", "bridge")
    _ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
    _ip("link", "set", bridge, "up")
    machines = []
    for number, name in enumerate(names):
        machine = Machine(name, f"{subnet}.{number + 2}", f"pl{mark}-{name}")
        space, cable = str(machine.namespace), f"plv{mark}-{number}"
        _ip("netns", "add", space)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", cable, "master", bridge, "up")
        _ip("-n", space, "addr", "add", f"{machine.address}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "route", "add", "default", "via", f"{subnet}.1")
        machines.append(machine)
    return Network(tuple(machines), f"{subnet}.1")


def _remove(names: Sequence[str], mark: str) -> None:
    for name in names:  # a namespace takes its end of the cable, and so the other, along
        with suppress(OSError, subprocess.CalledProcessError):
            _ip("netns", "del", f"pl{mark}-{name}")
    with suppress(OSError, subprocess.CalledProcessError):
        _ip("link", "del", f"plb{mark}")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _process(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.Error:
        return []


def _tree(top: psutil.Process) -> list[psutil.Process]:
    try:
        return [*top.children(recursive=True), top] if top.is_running() else []
    except psutil.Error:
        return []
