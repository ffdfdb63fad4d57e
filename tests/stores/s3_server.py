"""A real S3 endpoint for tests and proofs: moto's server, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What processes that use the endpoint need in their environment; it takes any secret."""


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running endpoint, such as http://127.0.0.1:9000."""

    endpoint: str
    pid: int

    @property
    def stores(self) -> dict[str, dict[str, str]]:
        """The `stores` of a job that uses it."""
        return {"s3://": {"endpoint": self.endpoint, "region": "us-east-1"}}

    @property
    def filesystem(self) -> fs.S3FileSystem:
        """A client that looks at it from beside the project's own code."""
        return fs.S3FileSystem(
            access_key=KEYS["AWS_ACCESS_KEY_ID"],
            secret_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            endpoint_override=self.endpoint,
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket."""
        self.filesystem.create_dir(name)


@contextmanager
def s3_server(
    host: str = "127.0.0.1", port: int | None = None, log: Path | None = None
) -> Iterator[S3Server]:
    """Start an endpoint, wait until it answers, and end it. `log` gets a line a request."""
    chosen = port or _free_port(host)
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(chosen)]
    with (log or Path(os.devnull)).open("w") as told:
        process = subprocess.Popen(command, stdout=told, stderr=told)
    try:
        _wait(host, chosen, process)
        yield S3Server(f"http://{host}:{chosen}", process.pid)
    finally:
        process.kill()
        process.wait()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def _wait(host: str, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection((host, port), 1):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the S3 endpoint does not start")
