"""A head and two workers, each a machine of its own, beside an S3 endpoint: what a proof needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machines import Machine, Network, network
from s3_server import KEYS, S3Server, s3_server

GCS = 6380
_DASHBOARD = 8265
_STORE_BYTES = 200_000_000


@dataclass(frozen=True)
class World:
    """The cluster, its store, and the folder of this proof."""

    network: Network
    store: S3Server
    folder: Path
    environment: dict[str, str]

    @property
    def address(self) -> str:
        return f"http://{self.network.machines[0].address}:{_DASHBOARD}"

    def pagelake(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command in a shell outside of the cluster."""
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, job: Path, output: str, *more: str) -> subprocess.Popen[str]:
        return self.pagelake(
            "submit", str(job), "--address", self.address, "--output", output, *more
        )

    def asked(self, *arguments: str) -> tuple[int, str]:
        """Run a command about a job to its end; return its exit code and all that it says."""
        asking = self.pagelake(*arguments, "--address", self.address)
        said, _ = asking.communicate(timeout=120)
        return asking.returncode, said


@contextmanager
def ray_cluster(folder: Path) -> Iterator[World]:
    """Start the machines, the store, the head and two workers; end them all."""
    environment = os.environ | KEYS | {
        "RAY_AUTH_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    with network(["head", "one", "two"]) as net, s3_server(net.outside) as store:
        world = World(net, store, folder, environment)
        head, *workers = net.machines
        _start(world, head, "--head", f"--port={GCS}", f"--dashboard-host={head.address}",
               f"--dashboard-port={_DASHBOARD}", '--resources={"cpu_node": 1}')  # fmt: skip
        wait(lambda: _answers(f"{world.address}/api/version"), "the head does not answer")
        for worker in workers:
            _start(world, worker, f"--address={head.address}:{GCS}",
                   '--resources={"reader": 2, "cpu_node": 1}')  # fmt: skip
        wait(lambda: _nodes(world) == 3, "the workers do not join")
        yield world


def _start(world: World, machine: Machine, *options: str) -> None:
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=2"),
        f"--node-ip-address={machine.address}",
        f"--object-store-memory={_STORE_BYTES}",
        "--disable-usage-stats",
        *options,
    ]
    # A machine has disks of its own; the names of Ray's sockets there may have 107 characters.
    temp, disk = world.folder / machine.name, world.folder / f"{machine.name}-tmp"
    disk.mkdir()
    log, environment = world.folder / f"{machine.name}.log", {"TMPDIR": str(disk)}
    machine.start([*command, f"--temp-dir={temp}"], log, world.environment | environment)


def _answers(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except OSError:
        return None


def _nodes(world: World) -> int:
    found = _answers(f"{world.address}/nodes?view=summary")
    return len(found["data"]["summary"]) if found else 0


def wait(ready: Callable[[], Any], complaint: str, patience_s: float = 180) -> None:
    deadline = time.monotonic() + patience_s
    while not ready():
        if time.monotonic() > deadline:
            raise SystemExit(complaint)
        time.sleep(0.2)
