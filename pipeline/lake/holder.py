"""Who holds an output's lock, and whether it can still be alive."""

from __future__ import annotations

import json
import secrets
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

from pydantic import AwareDatetime, TypeAdapter

from pipeline.processes import Process


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes to an output, on which machine, and until when that is certain."""

    run_id: str
    token: str
    host: str
    process: str
    """A `pipeline.processes.Process` as text."""

    started: AwareDatetime
    renewed: AwareDatetime
    expires: AwareDatetime

    @property
    def is_over(self) -> bool:
        """True if the lease has run out, or the holder is known to be dead."""
        return datetime.now(UTC) >= self.expires or self._is_gone()

    def __str__(self) -> str:
        return f"run {self.run_id} (process {Process.parse(self.process).pid} on {self.host})"

    def to_json(self) -> str:
        """Return the lock's JSON; times are ISO 8601 in UTC."""
        return json.dumps(asdict(self), indent=1, default=datetime.isoformat)

    @staticmethod
    def from_json(text: bytes) -> Holder:
        """Read what `to_json` wrote. Raises ValueError if it is damaged."""
        found = _HOLDER.validate_json(text)
        Process.parse(found.process)
        return found

    def _is_gone(self) -> bool:
        """True if it was a process of this machine, which can be told, and has ended."""
        process = Process.parse(self.process)
        return bool(process.boot) and process.near and process.gone


_HOLDER = TypeAdapter(Holder)


def this_process(run_id: str, lease: timedelta) -> Holder:
    """Return this process as a holder from now on, with a token of its own."""
    now = datetime.now(UTC)
    return Holder(
        run_id=run_id,
        token=secrets.token_hex(16),
        host=socket.gethostname(),
        process=str(Process.current()),
        started=now,
        renewed=now,
        expires=now + lease,
    )
