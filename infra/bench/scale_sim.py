"""Where does a run stop scaling? The stage graph in virtual time, with costs that were measured.

    python infra/bench/scale_sim.py [--costs infra/bench/stage_costs.json]

Shards of 16 pages are drawn by tasks on CPU cores into an object store of bounded size, answered by
actors that have so many slots, and committed by tasks on the same cores; the driver handles each of
those three calls in turn, on a core of its own. Costs of the CPU come from `stage_costs.py`, the
driver's from `infra/proofs/scaling.py` and `many_documents.py`, those of a model are given. Prints
tables of pages a second: against actors, beside what was measured; against CPU cores for a node of
GPUs; and against GPUs until the driver is the bound. The same seed gives the same tables.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from steady import steady_rate

Then = Callable[[], None]


class Clock:
    """Virtual seconds: what is due is done in order of time, and of arrival at equal times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Then]] = []
        self._n = 0

    def after(self, seconds: float, then: Then) -> None:
        """Do something so many seconds from now."""
        self._n += 1
        heapq.heappush(self._due, (self.now + seconds, self._n, then))

    def run(self) -> None:
        """Go on until nothing is due."""
        while self._due:
            self.now, _, then = heapq.heappop(self._due)
            then()


class Station:
    """So many servers before queues of work: the urgent one first, each in order of arrival."""

    def __init__(self, clock: Clock, servers: int) -> None:
        self._clock = clock
        self._free = servers
        self._urgent: deque[tuple[float, Then]] = deque()
        self._waiting: deque[tuple[float, Then]] = deque()
        self.busy_s = 0.0

    def serve(self, seconds: float, then: Then, *, urgent: bool = False) -> None:
        """Take a server for so long as soon as one is free, and go on with `then`."""
        (self._urgent if urgent else self._waiting).append((seconds, then))
        self._start()

    def _start(self) -> None:
        while self._free and (self._urgent or self._waiting):
            seconds, then = (self._urgent or self._waiting).popleft()
            self._free -= 1
            self.busy_s += seconds
            self._clock.after(seconds, lambda then=then: self._end(then))  # type: ignore[misc]

    def _end(self, then: Then) -> None:
        self._free += 1
        then()
        self._start()


@dataclass(frozen=True)
class Graph:
    """A run to simulate. Times in seconds, sizes in bytes, of a page unless it says otherwise."""

    pages: int
    actors: int
    slots: int
    """Pages that an actor answers side by side."""
    page_s: float
    """Mean time of a page in its slot."""
    spread: float
    """Coefficient of variation of that time; 0 for always the same."""
    cores: int
    draw_s: float
    """CPU: rasterize, encode, pack."""
    answer_s: float
    """CPU of the actor and its model's process beside the model: unpack, talk."""
    commit_s: float
    """CPU: answers out and in, parse, write."""
    driver_s: float
    """CPU of the driver for a shard: its three calls."""
    sample_bytes: float
    store_bytes: float = 1 << 30
    shard_pages: int = 16
    seed: int = 0

    @property
    def calls(self) -> int:
        """Shards that an actor is at together, as the runner sets them."""
        return max(2, math.ceil(self.slots / self.shard_pages) + 1)


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    committed: int
    pages_per_s: float
    """In the steady state."""
    wall_s: float
    slots_busy: float
    """The share of slots that answered, over the whole run; likewise the next two."""
    cores_busy: float
    driver_busy: float
    store_peak: float


class _Actor:
    def __init__(self, clock: Clock, slots: int) -> None:
        self.slots = Station(clock, slots)
        self.calls = 0


class Simulation:
    """One run of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._clock = Clock()
        self._chance = random.Random(graph.seed)
        self._cores = Station(self._clock, graph.cores)
        self._driver = Station(self._clock, 1)
        self._actors = [_Actor(self._clock, graph.slots) for _ in range(graph.actors)]
        self._todo: Iterator[int] = iter(self._sizes())
        self._drawing = 0
        self._drawn: deque[int] = deque()
        self._stored = self._store_peak = 0.0
        self._commits: list[tuple[float, int]] = []

    def run(self) -> Outcome:
        """Simulate to the end."""
        self._draw()
        self._clock.run()
        graph, wall_s = self._graph, self._clock.now
        slot_s = graph.actors * graph.slots * wall_s
        return Outcome(
            committed=sum(pages for _, pages in self._commits),
            pages_per_s=self._rate(),
            wall_s=wall_s,
            slots_busy=sum(actor.slots.busy_s for actor in self._actors) / slot_s,
            cores_busy=self._cores.busy_s / (graph.cores * wall_s),
            driver_busy=self._driver.busy_s / wall_s,
            store_peak=self._store_peak,
        )

    def _sizes(self) -> Iterator[int]:
        whole, rest = divmod(self._graph.pages, self._graph.shard_pages)
        yield from [self._graph.shard_pages] * whole
        yield from [rest] if rest else []

    def _draw(self) -> None:
        """Start drawing where a core is promised to each task and the store has room for it."""
        graph = self._graph
        most = graph.shard_pages * graph.sample_bytes
        while self._drawing < graph.cores and self._stored + most <= graph.store_bytes:
            pages = next(self._todo, 0)
            if not pages:
                return
            self._drawing += 1
            self._hold(pages)
            self._call(
                lambda pages=pages: self._cores.serve(  # type: ignore[misc]
                    pages * graph.draw_s, lambda: self._have_drawn(pages)
                )
            )

    def _call(self, then: Then) -> None:
        self._driver.serve(self._graph.driver_s / 3, then)

    def _hold(self, pages: int) -> None:
        self._stored += pages * self._graph.sample_bytes
        self._store_peak = max(self._store_peak, self._stored)

    def _have_drawn(self, pages: int) -> None:
        self._drawing -= 1
        self._drawn.append(pages)
        self._hand_out()
        self._draw()

    def _hand_out(self) -> None:
        """Give shards to the actors with the fewest, each of which may have twice its calls."""
        while self._drawn:
            actor = min(self._actors, key=lambda one: one.calls)
            if actor.calls >= 2 * self._graph.calls:
                return
            pages = self._drawn.popleft()
            actor.calls += 1
            self._call(lambda actor=actor, pages=pages: self._answer(actor, pages))  # type: ignore[misc]

    def _answer(self, actor: _Actor, pages: int) -> None:
        left = pages

        def answered() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._have_answered(actor, pages)

        def unpacked() -> None:
            for _ in range(pages):
                actor.slots.serve(self._page_s(), answered)

        self._cores.serve(pages * self._graph.answer_s, unpacked, urgent=True)

    def _page_s(self) -> float:
        mean, spread = self._graph.page_s, self._graph.spread
        if not spread:
            return mean
        variance = math.log(1 + spread**2)
        return self._chance.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))

    def _have_answered(self, actor: _Actor, pages: int) -> None:
        actor.calls -= 1
        self._stored -= pages * self._graph.sample_bytes
        self._call(
            lambda: self._cores.serve(
                pages * self._graph.commit_s,
                lambda: self._commits.append((self._clock.now, pages)),
                urgent=True,
            )
        )
        self._hand_out()
        self._draw()

    def _rate(self) -> float:
        times = [at for at, pages in self._commits for _ in range(pages)]
        return steady_rate(times)


def simulate(graph: Graph) -> Outcome:
    """Simulate one run."""
    return Simulation(graph).run()


def main() -> None:
    """Print the tables; see `scale_tables.py`."""
    from scale_tables import tables

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    folder = Path(__file__).parent
    parser.add_argument("--costs", type=Path, default=folder / "stage_costs.json")
    parser.add_argument("--runs", type=Path, default=folder / "scale_runs.json")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    costs, runs = (json.loads(path.read_text()) for path in (asked.costs, asked.runs))
    print(tables(costs, runs, lambda graph: simulate(replace(graph, seed=asked.seed))))


if __name__ == "__main__":
    main()
