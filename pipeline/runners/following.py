"""Following a job of a cluster to its end, though its job server is away for a while.

What a job prints comes over one connection that lasts; beside it, looks tell whether the job is
over. Neither says anything of the job when it fails: a restarted proxy cuts both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TypeVar

from pipeline.errors import ClusterError
from pipeline.runners.cluster import Cluster, ClusterJob

_LOOK_S = 15.0
_PATIENCE_S = 120.0  # from the first look that fails
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 15.0

Found = TypeVar("Found")


def follow(cluster: Cluster, job_id: str, say: Callable[[str], None]) -> ClusterJob:
    """Pass on the lines that a job prints, from its first, and return how it ended.

    A line that is cut is picked up again, and a look that fails is tried again for two minutes.
    Raises as `Cluster.job` does.
    """
    told = _Told(say)
    while not (found := _patiently(lambda: cluster.job(job_id))).is_over:
        asyncio.run(_tail(cluster, job_id, told))
    told.all_of(_patiently(lambda: cluster.logs(job_id)))
    return found


def _patiently(look: Callable[[], Found]) -> Found:
    """Look until the cluster answers. Raises its last ClusterError when patience has run out."""
    deadline, pause = None, _FIRST_PAUSE_S
    while True:
        try:
            return look()
        except ClusterError:
            now = time.monotonic()
            deadline = now + _PATIENCE_S if deadline is None else deadline
            if now + pause > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_S)


async def _tail(cluster: Cluster, job_id: str, told: _Told) -> None:
    """Pass lines on until the job has ended or the connection is lost."""
    import aiohttp

    told.again()
    lines: AsyncIterator[str] = cluster.tail(job_id)
    coming: asyncio.Future[str] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(lines))
            done, _ = await asyncio.wait({coming}, timeout=_LOOK_S)
            if not done and cluster.job(job_id).is_over:
                return
            if done:
                text, coming = coming.result(), None
                told.more(text)
    except (StopAsyncIteration, RuntimeError, OSError, aiohttp.ClientError, ClusterError):
        await asyncio.sleep(1)  # it ended, or the line was cut: the next look tells
    finally:
        if coming is not None:
            coming.cancel()
            with suppress(BaseException):
                await coming


class _Told:
    """What of a log has been passed on, so that it can be read from its beginning again."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told = self._read = 0
        self._rest = ""

    def again(self) -> None:
        self._read = 0

    def more(self, text: str) -> None:
        new = text[max(0, self._told - self._read) :]
        self._read += len(text)
        self._told = max(self._told, self._read)
        *lines, self._rest = (self._rest + new).split("\n")
        for line in lines:
            self._say(line)

    def all_of(self, text: str) -> None:
        self.again()
        self.more(text)
        if self._rest:
            self._say(self._rest)
