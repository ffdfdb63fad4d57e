"""Who runs next: free slots, and the rows that wait for one. No torch here."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

from pipeline.engine.row import Row


class Scheduler:
    """Rows wait in order, run in the lowest free slot, and leave."""

    def __init__(self, slots: int) -> None:
        self.waiting: deque[Row] = deque()
        self.running: list[Row] = []
        self._slots = slots
        self._free = list(range(slots))

    @property
    def slots(self) -> int:
        """How many rows may run."""
        return self._slots

    @property
    def free(self) -> int:
        """How many slots are free."""
        return len(self._free)

    @property
    def group(self) -> int:
        """How many rows should join together.

        Each joining stops the others for the time of a prompt, which costs least when several join
        at once; but a free slot costs nearly as much in each step as a full one.
        """
        return max(1, self._slots // 8)

    def next(self, most: int) -> list[Row]:
        """Return the rows that have waited longest."""
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def join(self, rows: Iterable[Row]) -> None:
        """Give rows free slots."""
        for row in rows:
            row.slot = heapq.heappop(self._free)
            self.running.append(row)
        # By slot: rows that lie as the slots do need no sorting in each layer of a step.
        self.running.sort(key=lambda row: row.slot)

    def leave(self, rows: Iterable[Row]) -> None:
        """Free the slots of rows that have finished or failed."""
        gone = set(map(id, rows))
        for row in self.running:
            if id(row) in gone:
                heapq.heappush(self._free, row.slot)
        self.running = [row for row in self.running if id(row) not in gone]

    def moves(self) -> list[tuple[Row, int]]:
        """Return which rows should go where for the lowest slots to be the full ones."""
        count = len(self.running)
        moving = [row for row in self.running if row.slot >= count]
        return list(zip(moving, sorted(slot for slot in self._free if slot < count), strict=True))

    def moved(self, row: Row, slot: int) -> None:
        """Note that a row has gone to a free slot."""
        self._free.remove(slot)
        self._free.append(row.slot)
        heapq.heapify(self._free)
        row.slot = slot
        self.running.sort(key=lambda row: row.slot)

    def resize(self, slots: int) -> None:
        """Allow so many rows from now on; none may be running."""
        self._slots = slots
        self._free = list(range(slots))
