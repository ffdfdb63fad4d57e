"""One writer at a time: a lease in `_pagelake/lock` that its holder keeps renewing.

Commits need no lock to be correct. Two runs at once would do the same pages twice, and the one that
ends first would sweep away files that the other has not committed yet; the lock tells the second
run so before it writes anything. `_pagelake/lock` is the `Holder` as JSON.

A lease that has run out may be taken over; at once if its holder was a process of this machine and
is gone. On a local disk, and a network's if it knows locks, looking and taking are one step; so
they are on an object store that can put an object on condition that nobody else has. Where neither
is known, a taker puts its lock, waits, and looks whose is left. That is a courtesy, and a clock
that is minutes off spoils it.
"""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, Never, Self

from pipeline.errors import OutputError, OutputInUseError, RunError, one_line
from pipeline.lake.holder import Holder, this_process
from pipeline.lake.layout import LOCK, Layout
from pipeline.lake.object_store import ChangedError, Version

LEASE_S = 120.0
"""How long a holder that says nothing is believed to live."""

_RENEWALS_A_LEASE = 6
_SETTLE_S = 1.0
_GUARD = "_pagelake/.guard"  # an empty file that stays: deleting it would let two takers pass

_done: set[str] = set()
"""Tokens of this process's locks that are given back, on a disk that would not let them go too."""


def holder(layout: Layout) -> Holder | None:
    """Return what the lock says, whether or not it is over; None if there is none.

    Raises
    ------
    OutputError
        If the lock cannot be understood.
    """
    try:
        return _parsed(layout, layout.read_bytes(LOCK))
    except FileNotFoundError:
        return None


def _parsed(layout: Layout, text: bytes) -> Holder:
    try:
        return Holder.from_json(text)
    except ValueError as error:
        raise OutputError(
            f"output {layout.uri}: {LOCK} is damaged; delete it if no run is on"
        ) from error


def refuse_if_held(layout: Layout) -> None:
    """Raise OutputError, naming the holder, if somebody writes to the output now."""
    _refuse(layout, holder(layout))


def _refuse(layout: Layout, found: Holder | None) -> None:
    if found is not None and found.token not in _done and not found.is_over:
        raise OutputInUseError(
            f"output {layout.uri}: in use since {clock(found.started)} by {found}; wait until it "
            f"ends, or choose another output.uri (if it died, try after {clock(found.expires)})"
        )


class Lock:
    """Holds an output while its block runs. Its lease is renewed by a thread of its own.

    Raises
    ------
    OutputError
        On entering, if another run holds the output (OutputInUseError), or the lock cannot be
        written.
    RunError
        On entering, if the output's store is away.
    """

    def __init__(self, layout: Layout, run_id: str, lease_s: float = LEASE_S) -> None:
        self._layout = layout
        self._lease = timedelta(seconds=lease_s)
        self._mine = this_process(run_id, self._lease)
        self._exact = False  # True where a store puts the lock on condition
        self._lost: str | None = None
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pagelake-lock", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._take()
        except BaseException as error:
            self._give_back()
            if isinstance(error, OSError):
                raise self._layout.not_written(error) from error
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join(self._lease.total_seconds())
        self._give_back()

    @property
    def lost(self) -> bool:
        """True once it has been noticed that the output is not held any more."""
        return self._lost is not None

    def require(self) -> None:
        """Look again and renew; do so before anything that only the holder may do.

        Raises
        ------
        RunError
            If the lock is another's or gone, or could not be read until its lease ran out.
        """
        try:
            self._renew()
        except OSError as error:
            if datetime.now(UTC) >= self._mine.expires:
                self._lost = f"it could not be renewed ({one_line(error)})"
        if self._lost is not None:
            raise RunError(f"output {self._layout.uri}: this run lost its lock: {self._lost}")

    def _take(self) -> None:
        if self._took_on_condition():
            return
        with _guard(self._layout) as exclusive:
            if not self._is_mine(found := holder(self._layout)):
                _refuse(self._layout, found)
            self._write(self._mine)
        if not exclusive:
            time.sleep(_SETTLE_S)
            if not self._is_mine(holder(self._layout)):
                self._too_late()

    def _took_on_condition(self) -> bool:
        """Take the lock where a store lets one of all takers pass; False if it is none of those."""
        mine, version = self._mine.to_json().encode(), None
        try:
            with suppress(FileNotFoundError):
                text, version = self._layout.version(LOCK)
                _refuse(self._layout, _parsed(self._layout, text))
            self._layout.put_over(LOCK, mine, version)
            # Some stores take conditions and do not heed them: they would let this pass as well.
            self._layout.put_over(LOCK, mine, None)
        except ChangedError:
            self._exact = self._is_mine(holder(self._layout))
            if not self._exact:
                self._too_late()
        except NotImplementedError:
            pass
        return self._exact

    def _too_late(self) -> Never:
        refuse_if_held(self._layout)
        raise OutputInUseError(f"output {self._layout.uri}: another run began just now; try again")

    def _give_back(self) -> None:
        _done.add(self._mine.token)
        with suppress(OSError, OutputError), _guard(self._layout):
            if self._is_mine(holder(self._layout)):
                self._layout.delete(LOCK)

    def _keep(self) -> None:
        while not self._ended.wait(self._lease.total_seconds() / _RENEWALS_A_LEASE):
            with suppress(OSError):  # tried again; `require` knows when the lease is out
                self._renew()
            if self.lost:
                return

    def _renew(self) -> None:
        with self._renewing, _guard(self._layout):
            try:
                found = self._renewed()
            except OutputError as error:
                self._lost = str(error)
                return
            if found is not None and self._is_mine(found):
                self._mine = found
            else:
                self._lost = "it was deleted" if found is None else f"{found} took it over"

    def _renewed(self) -> Holder | None:
        """Write the lock anew if it is still mine; return whose it is then."""
        now = datetime.now(UTC)
        renewed = replace(self._mine, renewed=now, expires=now + self._lease)
        try:
            version = self._layout.version(LOCK)[1] if self._exact else None
            if not self._is_mine(found := holder(self._layout)):
                return found
            self._write(renewed, version)
        except FileNotFoundError:
            return None
        except ChangedError:
            # Not always by another: a put that arrived, and whose answer did not, is sent again by
            # the client and meets itself.
            return holder(self._layout)
        return renewed

    def _is_mine(self, found: Holder | None) -> bool:
        return found is not None and found.token == self._mine.token

    def _write(self, mine: Holder, version: Version | None = None) -> None:
        data = mine.to_json().encode()
        if version is not None:
            try:
                self._layout.put_over(LOCK, data, version)
                return
            except NotImplementedError:  # of a store that can tell whether there is one, not which
                self._exact = False
        self._layout.write_bytes(LOCK, data)


@contextmanager
def _guard(layout: Layout) -> Iterator[bool]:
    """Let one process at a time look at the lock and change it; False where nothing can do that."""
    path = layout.local(_GUARD)
    if path is None:
        yield False
        return
    with _opened(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            exclusive = True
        except OSError:  # some network disks
            exclusive = False
        yield exclusive


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("ab")
    except PermissionError:  # another user made it; to lock it, reading is enough
        return path.open("rb")


def clock(moment: datetime) -> str:
    """Return a moment as people are told it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
