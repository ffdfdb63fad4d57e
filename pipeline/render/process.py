"""The parent's handle on a render process: starts it, watches it, kills it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from pipeline.errors import ItemError, RunError
from pipeline.records import FailureKind
from pipeline.render.messages import Failed, Ready, Reply, Request, decode, encode

START_S = 120.0
"""Seconds that a render process may take until it is ready."""

_LOOK_MS = 50
_MIB = 1 << 20

ReplyT = TypeVar("ReplyT", bound=Reply)


class RenderLimits(Protocol):
    """The limits of a render process: CPU and wall seconds a request, MiB above its start."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds that one request may take."""

    @property
    def wall_s(self) -> float:
        """Seconds that one request may take."""

    @property
    def memory_mb(self) -> int:
        """MiB of address space beyond what the process has when it is ready."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children have used: CPU seconds, and bytes mapped now (its own)."""

    cpu_s: float
    address_space: int


class RenderProcess:
    """A running `pipeline.render.child`, in a process group of its own."""

    def __init__(self, canvas_path: str, limits: RenderLimits) -> None:
        self._limits = limits
        command = [sys.executable, "-P", "-m", "pipeline.render.child"]
        command += ["--parent", str(os.getpid()), "--canvas", canvas_path]
        command += ["--memory-mb", str(limits.memory_mb)]
        # One malloc arena: each further one would take 64 MiB of the address space.
        environment = os.environ | {
            "MALLOC_ARENA_MAX": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=0,
        )
        self._peak = 0
        self._address_space = self._await_ready()

    def ask(self, request: Request, reply_type: type[ReplyT]) -> ReplyT:
        """Send a request and wait for its reply.

        Raises:
            ItemError: what the process reports; or render_timeout, render_memory, render_crash if
                it overran a limit or died, in which case it is gone.
        """
        try:
            reply = self._converse(request)
        except (_Died, BrokenPipeError):
            raise self._obituary() from None
        except BaseException:  # the reply that is still to come must not answer the next request
            self.kill()
            raise
        if isinstance(reply, Failed):
            raise ItemError(FailureKind(reply.kind), reply.message)
        if not isinstance(reply, reply_type):
            self.kill()
            raise RunError(f"the render process answered {reply} to {type(request).__name__}")
        return reply

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    @property
    def memory_left(self) -> float:
        """The share of its memory limit that is not mapped now; 1 where that cannot be told."""
        usage = _usage(self._process.pid)
        if usage is None or self._address_space is None:
            return 1.0
        return (self._address_space - usage.address_space) / (self._limits.memory_mb * _MIB)

    def kill(self) -> None:
        """End the process and its children, and let go of its pipes. May be called twice."""
        if self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101
            with suppress(BrokenPipeError):
                pipe.close()

    def _await_ready(self) -> int | None:
        try:
            reply = decode(self._read_line(time.monotonic() + START_S, cpu_until=None))
            assert isinstance(reply, Ready)  # noqa: S101
        except (_Died, ItemError):
            self.kill()
            raise RunError(
                "the render process did not start; "
                f"`{sys.executable} -m pipeline.render.child --help` may tell why"
            ) from None
        return reply.address_space

    def _converse(self, request: Request) -> Reply | Request:
        assert self._process.stdin is not None  # noqa: S101
        usage = _usage(self._process.pid)
        cpu_until = usage.cpu_s + self._limits.cpu_s if usage else None
        self._peak = usage.address_space if usage else 0
        self._process.stdin.write(encode(request))
        self._process.stdin.flush()
        return decode(self._read_line(time.monotonic() + self._limits.wall_s, cpu_until))

    def _read_line(self, wall_until: float, cpu_until: float | None) -> bytes:
        """A line of the process's output, or `_Died`, or `ItemError` if a limit is overrun."""
        assert self._process.stdout is not None  # noqa: S101
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        line = bytearray()
        while not line.endswith(b"\n"):
            if poll.poll(_LOOK_MS):
                piece = os.read(pipe, 1 << 20)
                if not piece:
                    raise _Died
                line += piece
            else:
                self._check_time(wall_until, cpu_until)
        return bytes(line)

    def _check_time(self, wall_until: float, cpu_until: float | None) -> None:
        usage = _usage(self._process.pid)
        if usage is not None:
            self._peak = max(self._peak, usage.address_space)
            if cpu_until is not None and usage.cpu_s > cpu_until:
                message = f"the renderer took more than {self._limits.cpu_s:g} s of CPU time"
                raise ItemError(FailureKind.RENDER_TIMEOUT, message)
        if time.monotonic() > wall_until:
            message = f"the renderer took longer than {self._limits.wall_s:g} s"
            raise ItemError(FailureKind.RENDER_TIMEOUT, message)

    def _obituary(self) -> ItemError:
        """Why the process died: the renderers abort alike on a bug and on a refused allocation."""
        self.kill()
        memory_mb = self._limits.memory_mb
        if self._address_space and self._address_space - self._peak < memory_mb * _MIB / 2:
            message = f"the renderer ran out of its {memory_mb} MiB"
            return ItemError(FailureKind.RENDER_MEMORY, message)
        return ItemError(FailureKind.RENDER_CRASH, f"the renderer died of {self._cause()}")

    def _cause(self) -> str:
        status = self._process.returncode
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


class _Died(Exception):
    """The process closed its end of the pipe."""


def _usage(pid: int) -> Usage | None:
    """What `pid` has used, its living children's CPU time included; None if that is not told."""
    own = _read_stat(pid)
    if own is None:
        return None
    cpu_s = own.cpu_s
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    for child in children:
        usage = _read_stat(int(child))
        cpu_s += usage.cpu_s if usage else 0.0
    return Usage(cpu_s, own.address_space)


def _read_stat(pid: int) -> Usage | None:
    """CPU time (its own and its waited-for children's) and size of a process; see proc(5)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    ticks = sum(int(field) for field in fields[11:15])
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), int(fields[20]))
