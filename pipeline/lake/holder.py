"""Who holds an output's lock, and whether it can still be alive."""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, TypeAdapter


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes to an output, on which machine, and until when that is certain.

    `process_started` is in clock ticks since the machine's start: it tells a process from a later
    one with the same number. Where there is no /proc, it and what names the machine are empty.
    """

    run_id: str
    token: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: Annotated[int, Field(gt=0, lt=1 << 31)]
    process_started: str
    started: AwareDatetime
    renewed: AwareDatetime
    expires: AwareDatetime

    @property
    def is_over(self) -> bool:
        """True if the lease has run out, or the holder is known to be dead."""
        return datetime.now(UTC) >= self.expires or self._is_gone()

    def __str__(self) -> str:
        return f"run {self.run_id} (process {self.pid} on {self.host})"

    def to_json(self) -> str:
        """Return the lock's JSON; times are ISO 8601 in UTC."""
        return json.dumps(asdict(self), indent=1, default=datetime.isoformat)

    @staticmethod
    def from_json(text: bytes) -> Holder:
        """Read what `to_json` wrote. Raises ValueError if it is damaged."""
        return _HOLDER.validate_json(text)

    def _is_gone(self) -> bool:
        if not self.boot_id or (self.boot_id, self.pid_namespace) != (_boot_id(), _namespace()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's, and /proc may hide it
            return False
        return process_started(self.pid) != self.process_started


_HOLDER = TypeAdapter(Holder)


def this_process(run_id: str, lease: timedelta) -> Holder:
    """Return this process as a holder from now on, with a token of its own."""
    now = datetime.now(UTC)
    return Holder(
        run_id=run_id,
        token=secrets.token_hex(16),
        host=socket.gethostname(),
        boot_id=_boot_id(),
        pid_namespace=_namespace(),
        pid=os.getpid(),
        process_started=process_started(os.getpid()),
        started=now,
        renewed=now,
        expires=now + lease,
    )


def _boot_id() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def _namespace() -> str:
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def process_started(pid: int) -> str:
    """Return when a process started; nothing if it is gone, or dead and not yet buried."""
    try:
        # proc(5): the name, field 2, may hold anything; 3 is the state, 22 the start.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
