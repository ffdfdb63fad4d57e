"""Who runs next: free slots, and the rows that wait for one. No torch here."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from pipeline.engine.row import Row


class Scheduler:
    """Rows wait in order, run in the lowest free slot, and leave.

    New rows join when a quarter of the slots is free: each joining stops the others for the time of
    a prompt, which costs least when several join at once.
    """

    def __init__(self, slots: int) -> None:
        self.waiting: deque[Row] = deque()
        self.running: list[Row] = []
        self._slots = slots
        self._free = list(range(slots))

    @property
    def slots(self) -> int:
        """How many rows may run."""
        return self._slots

    def joining(self) -> list[Row]:
        """Give waiting rows slots, if it is time; return those that join."""
        if not self.waiting or len(self._free) < max(1, self._slots // 4):
            return []
        joined = []
        while self.waiting and self._free:
            row = self.waiting.popleft()
            row.slot = heapq.heappop(self._free)
            joined.append(row)
        self.running += joined
        return joined

    def leave(self, rows: Iterable[Row]) -> None:
        """Free the slots of rows that have finished or failed."""
        gone = set(map(id, rows))
        for row in self.running:
            if id(row) in gone:
                heapq.heappush(self._free, row.slot)
        self.running = [row for row in self.running if id(row) not in gone]

    def wait_again(self, rows: Iterable[Row]) -> None:
        """Take rows out of their slots, to join again before all others."""
        again = list(rows)
        self.leave(again)
        self.waiting.extendleft(reversed(again))

    def shrink(self, slots: int) -> None:
        """Allow fewer rows from now on; none may be running."""
        self._slots = slots
        self._free = list(range(slots))
