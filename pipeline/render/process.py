"""The parent's handle on a render process: starts it, watches it, kills it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter

from pipeline.errors import ItemError, RunError
from pipeline.processes import how_it_ended
from pipeline.records import FailureKind
from pipeline.render.messages import (
    Drawn,
    Failed,
    Measured,
    Opened,
    Ready,
    Reply,
    Request,
    TextLayer,
    encode,
)
from pipeline.render.sandbox import scrubbed

START_S = 120.0
"""Seconds that a render process may take until it is ready."""

_LOOK_MS = 50
_MIB = 1 << 20
_MAX_REPLY = 64 * _MIB
_KINDS = tuple(kind.value for kind in FailureKind)

ReplyT = TypeVar("ReplyT", bound=Reply)

_REPLIES: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (Ready, Opened, Measured, Drawn, TextLayer, Failed)
}


class RenderLimits(Protocol):
    """The limits of a render process: CPU and wall seconds a budget, MiB above its start."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds that opening a document, or one try at a page, may take."""

    @property
    def wall_s(self) -> float:
        """Seconds by the clock that the same may take."""

    @property
    def memory_mb(self) -> int:
        """MiB of address space beyond what the process has when it is ready."""


@dataclass(slots=True)
class Budget:
    """What is left of a limit, in CPU and wall seconds, to requests that share it."""

    cpu_s: float
    wall_s: float


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
        # One malloc arena: each further one would take 64 MiB of the address space. One thread of
        # numpy's, for the same reason.
        environment = scrubbed(os.environ) | {
            "MALLOC_ARENA_MAX": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self._ended = False
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=0,
        )
        self._peak = 0
        self._replies = bytearray()
        ready = self._await_ready()
        self._address_space = ready.address_space
        self.filtered = ready.filtered

    def budget(self) -> Budget:
        """A whole limit, for requests to share."""
        return Budget(self._limits.cpu_s, self._limits.wall_s)

    def ask(self, request: Request, reply_type: type[ReplyT], budget: Budget) -> ReplyT:
        """Send a request and wait for its reply; takes what that costs from the budget.

        Raises:
            ItemError: what the process reports; or render_timeout, render_memory, render_crash if
                it overran a limit or died, in which case it is gone.
        """
        return self._converse(request, reply_type, budget)

    def listen(self, reply_type: type[ReplyT], budget: Budget) -> ReplyT:
        """Wait for a further reply to the last request; otherwise as `ask`."""
        return self._converse(None, reply_type, budget)

    def _converse(
        self, request: Request | None, reply_type: type[ReplyT], budget: Budget
    ) -> ReplyT:
        try:
            reply = self._exchange(request, budget)
        except (_Died, BrokenPipeError):
            raise self._obituary() from None
        except BaseException:  # the reply that is still to come must not answer the next request
            self.kill()
            raise
        if isinstance(reply, reply_type):
            return reply
        if isinstance(reply, Failed) and reply.kind in _KINDS:
            raise ItemError(FailureKind(reply.kind), reply.message)
        self.kill()  # a file has taken it over, as far as we know
        raise ItemError(FailureKind.RENDER_CRASH, "the renderer's reply makes no sense")

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
        if not self._ended:
            self._ended = True
            with suppress(ProcessLookupError):  # pdftoppm may outlive a process that is gone
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None  # noqa: S101
            with suppress(BrokenPipeError):
                pipe.close()

    def _await_ready(self) -> Ready:
        try:
            reply = _understood(self._read_line(time.monotonic() + START_S, cpu_until=None))
            assert isinstance(reply, Ready)  # noqa: S101
        except (_Died, ItemError):
            self.kill()
            raise RunError(
                "the render process did not start; "
                f"`{sys.executable} -m pipeline.render.child --help` may tell why"
            ) from None
        return reply

    def _exchange(self, request: Request | None, budget: Budget) -> object:
        assert self._process.stdin is not None  # noqa: S101
        started = time.monotonic()
        before = _usage(self._process.pid)
        self._peak = before.address_space if before else 0
        if request is not None:
            self._process.stdin.write(encode(request))
            self._process.stdin.flush()
        cpu_until = before.cpu_s + budget.cpu_s if before else None
        line = self._read_line(started + budget.wall_s, cpu_until)
        after = _usage(self._process.pid)
        if before and after:
            budget.cpu_s -= after.cpu_s - before.cpu_s
        budget.wall_s -= time.monotonic() - started
        return _understood(line)

    def _read_line(self, wall_until: float, cpu_until: float | None) -> bytes:
        """A line of the process's output, or `_Died`, or `ItemError` if a limit is overrun."""
        assert self._process.stdout is not None  # noqa: S101
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        while (end := self._replies.find(b"\n") + 1) == 0:
            if poll.poll(_LOOK_MS):
                piece = os.read(pipe, 1 << 20)
                if not piece:
                    raise _Died
                self._replies += piece
                if len(self._replies) > _MAX_REPLY:
                    raise ItemError(FailureKind.RENDER_CRASH, "the renderer's reply has no end")
            self._check_time(wall_until, cpu_until)
        line = bytes(self._replies[:end])
        del self._replies[:end]
        return line

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
        ended = how_it_ended(self._process.returncode)
        return ItemError(FailureKind.RENDER_CRASH, f"the renderer {ended}")


def _understood(line: bytes) -> Reply | None:
    """What a reply says, None if it makes no sense: a file may have taken the process over."""
    try:
        name, fields = json.loads(line)
        reply: Reply = _REPLIES[name].validate_python(fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return reply


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
