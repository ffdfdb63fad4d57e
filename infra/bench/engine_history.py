"""Does the engine slow down, or grow, with what it has answered before?

    python infra/bench/engine_history.py [--samples 2000] [--runs 5] [--warm 500] [--seed 1]

One engine answers made receipts without a pause: a few hundred are drawn before the clock starts,
and every quarter of the run asks for the same ones, as often, in an order of its own. Pages are
counted as they are finished, and the CPU seconds a page of the last quarter are held against the
first's, the resident memory likewise. Before the first quarter the engine is warmed, and behind the
last it is kept full, so that none pays for a batch that fills or empties. Each run is a process of
its own. Linux only.

The engine guesses from earlier answers, so what is asked again takes fewer passes: it is warmed
until it has learnt all there is, and passes are shown beside the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from threading import BoundedSemaphore, Event
from typing import Any

from pipeline.bench.workload import make_work
from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.records import Generation

QUARTERS = 4
MOST_DISTINCT = 250
SLACK = 0.05
MEMORY_SLACK, MEMORY_SPARE = 0.05, 20e6


@dataclass(frozen=True)
class Quarter:
    """What a quarter of a run cost a page; `memory` in bytes, resident at its end."""

    pages: int
    cpu_s: float
    passes: float
    tokens: float
    memory: int


@dataclass
class Clock:
    """Counts pages as the engine finishes them: `warm` ones, then quarters of `size` each.

    `finished` is called in the engine's thread, so that nothing else runs when a quarter ends.
    """

    warm: int
    size: int
    quarters: list[Quarter] = field(default_factory=list)
    over: Event = field(default_factory=Event)
    error: BaseException | None = None
    _pages: int = 0
    _passes: int = 0
    _tokens: int = 0
    _started: float = 0.0

    def finished(self, future: Future[Generation]) -> None:
        if self.over.is_set():
            return
        self.error = future.exception()
        if self.error is not None:
            self.over.set()
            return
        generation = future.result()
        self._pages += 1
        self._passes += generation.passes
        self._tokens += len(generation.token_ids)
        if self._pages == self.warm:
            self._begin()
        elif self._pages > self.warm and (self._pages - self.warm) % self.size == 0:
            self._end()

    def _begin(self) -> None:
        self._passes = self._tokens = 0
        self._started = time.process_time()

    def _end(self) -> None:
        spent = time.process_time() - self._started
        passes, tokens = self._passes / self.size, self._tokens / self.size
        self.quarters.append(Quarter(self.size, spent / self.size, passes, tokens, resident()))
        if len(self.quarters) == QUARTERS:
            self.over.set()
        self._begin()


def resident() -> int:
    """Return the bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def in_quarters(distinct: int, size: int, seed: int) -> list[list[int]]:
    """Return which of the distinct samples each quarter asks for: the same, otherwise ordered."""
    work = list(islice(cycle(range(distinct)), size))
    rng = random.Random(seed)
    return [rng.sample(work, size) for _ in range(QUARTERS)]


def run(samples: int, warm: int, batch: int, seed: int) -> list[Quarter]:
    """Answer `samples` in one engine, `batch` side by side; return what each quarter cost."""
    in_flight = 5 * batch // 2
    size = samples // QUARTERS
    distinct = min(MOST_DISTINCT, size)
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as folder:
        work = make_work(Path(folder), "nano", distinct, seed, threads=1)
    requests = work.requests()
    quarters = in_quarters(distinct, size, seed)
    around = list(islice(cycle(quarters[-1]), warm + in_flight))
    order = [*around[:warm], *(one for quarter in quarters for one in quarter), *around[warm:]]
    clock = Clock(warm, size)
    with Engine(work.model, Limits(batch)) as engine:
        feed(engine, [requests[one] for one in order], in_flight, clock)
        clock.over.wait()
        engine.close(drain=False)
    if clock.error is not None:
        raise clock.error
    return clock.quarters


def feed(engine: Engine, requests: Sequence[Request], in_flight: int, clock: Clock) -> None:
    """Submit all requests, `in_flight` at a time: more than the engine runs side by side."""
    room = BoundedSemaphore(in_flight)
    for request in requests:
        room.acquire()
        future = engine.submit(request)
        future.add_done_callback(clock.finished)
        future.add_done_callback(lambda _: room.release())


def measure(samples: int, runs: int, warm: int, batch: int, seed: int) -> dict[str, Any]:
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        found = [pool.submit(run, samples, warm, batch, seed + n).result() for n in range(runs)]
    return {
        "samples": samples,
        "runs": [[asdict(quarter) for quarter in quarters] for quarters in found],
        "cpu_s": [median(run[i].cpu_s for run in found) for i in range(QUARTERS)],
        "passes": [median(run[i].passes for run in found) for i in range(QUARTERS)],
        "memory": [median(run[i].memory for run in found) for i in range(QUARTERS)],
        "ratio": median(run[-1].cpu_s / run[0].cpu_s for run in found),
        "growth": median(run[-1].memory - run[0].memory for run in found),
    }


def short_of(found: dict[str, Any]) -> list[str]:
    allowed = MEMORY_SLACK * found["memory"][0] + MEMORY_SPARE
    checks = {
        "CPU seconds a page as in the first quarter": abs(found["ratio"] - 1) <= SLACK,
        "memory as in the first quarter": found["growth"] <= allowed,
    }
    return [wanted for wanted, holds in checks.items() if not holds]


def show(found: dict[str, Any]) -> None:
    print(f"{found['samples']} samples, medians of {len(found['runs'])} runs")
    print(f"{'quarter':32}" + "".join(f"{number + 1:>10}" for number in range(QUARTERS)))
    for name, key, factor in (
        ("CPU ms a page", "cpu_s", 1e3),
        ("passes a page", "passes", 1),
        ("resident MB at its end", "memory", 1e-6),
    ):
        print(f"{name:32}" + "".join(f"{factor * figure:10.1f}" for figure in found[key]))
    print(f"last quarter to first: {found['ratio']:.3f}, memory {found['growth'] / 1e6:+.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--warm", type=int, default=500, help="samples before the first quarter")
    parser.add_argument("--batch", type=int, default=64, help="samples that run side by side")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON, not a table")
    asked = parser.parse_args()
    if asked.samples < QUARTERS or min(asked.runs, asked.warm, asked.batch) < 1:
        parser.error(f"take {QUARTERS} samples or more, and of all else one or more")
    found = measure(asked.samples, asked.runs, asked.warm, asked.batch, asked.seed)
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)
    if missed := short_of(found):
        raise SystemExit("short of what is wanted: " + ", ".join(missed))


if __name__ == "__main__":
    main()
