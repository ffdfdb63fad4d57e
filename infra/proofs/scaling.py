"""Twice the models answer twice the pages: the whole Ray graph, with a model that only waits.

    python infra/proofs/scaling.py --actors 1,2,4,8 --rounds 3

The weightless `fake` model takes 0.2 s a page and answers one page at a time, so an actor can
answer five pages a second and needs hardly any CPU: what keeps the run from that, times the actors,
is the graph that feeds it. Each run reads small images into tables. Its rate is that of the steady
state, from 25% to 85% of the pages: without start-up, and without the end, when actors run out of
work one after the other. Exits 1 if any rate is less than 0.9 of the actors times five. Linux only;
about two minutes a round and number of actors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from piles import make_pile
from watched import Watched, watch

sys.path.append(str(Path(__file__).parents[1] / "bench"))
from steady import steady, steady_rate

SECONDS_A_PAGE = 0.2
WANTED = 0.9
_JOB = """\
input: {{paths: [{pile}]}}
task: ocr
model: {{family: fake, name: "fake?edge=224&seconds={seconds}"}}
resources: {{cpus: 6, batch: 1, cpus_per_actor: 0.25, actors: {{min: {actors}, max: {actors}}}}}
output: {{uri: {output}}}
"""


@dataclass(frozen=True)
class Measured:
    """One run: its rate, and what the machine was at meanwhile."""

    actors: int
    pages: int
    start_s: float
    """Seconds to the first commit: listing, planning, starting Ray, actors and models."""
    wall_s: float
    pages_per_s: float
    of_linear: float
    idle: float
    """The share of the machine's CPU time that nothing used, in the steady state."""
    cpu_ms: dict[str, float]
    """CPU milliseconds a page in the steady state, by kind of process."""


def measure(actors: int, pages: int, seed: int) -> Measured:
    """Run the graph with so many actors over so many pages."""
    with tempfile.TemporaryDirectory(prefix="pagelake-proof-") as name:
        folder = Path(name)
        make_pile(folder / "pile", pages, seed, {"image": 1.0})
        job = folder / "job.yaml"
        job.write_text(
            _JOB.format(
                pile=folder / "pile",
                seconds=SECONDS_A_PAGE,
                actors=actors,
                output=folder / "out",
            )
        )
        watched = watch(job, folder / "out")
        times = ds.dataset(folder / "out" / "pages").to_table(["processed_at"])
    return reckon(actors, sorted(times.column("processed_at").to_pylist()), watched)


def reckon(actors: int, committed: Sequence[datetime], watched: Watched) -> Measured:
    """Work the rate out, from when each page was committed."""
    seconds = [(at - watched.started).total_seconds() for at in committed]
    rate = steady_rate(seconds)
    times = steady(seconds)
    first, last = (watched.started + timedelta(seconds=at) for at in (times[0], times[-1]))
    counted = len(times)
    before, after = watched.at(first), watched.at(last)
    spent = after.since(before)
    return Measured(
        actors=actors,
        pages=len(committed),
        start_s=(committed[0] - watched.started).total_seconds(),
        wall_s=watched.wall_s,
        pages_per_s=rate,
        of_linear=rate * SECONDS_A_PAGE / actors,
        idle=after.idle_since(before),
        cpu_ms={kind: 1000 * seconds / counted for kind, seconds in spent.items()},
    )


def median_of(rounds: Sequence[Measured]) -> Measured:
    """Return the round whose rate is the median, the slower of two."""
    return sorted(rounds, key=lambda one: one.pages_per_s)[(len(rounds) - 1) // 2]


def table(found: Sequence[Sequence[Measured]]) -> str:
    """Return a line for each number of actors."""
    lines = ["actors  pages  first commit s  pages/s  of linear  CPU ms a page  idle  rounds"]
    for rounds in found:
        one = median_of(rounds)
        rates = " ".join(f"{other.pages_per_s:.2f}" for other in rounds)
        lines.append(
            f"{one.actors:6}{one.pages:7}{one.start_s:16.1f}{one.pages_per_s:9.2f}"
            f"{one.of_linear:11.3f}{sum(one.cpu_ms.values()):15.1f}{one.idle:6.0%}  {rates}"
        )
    costs: dict[str, list[float]] = {}
    for rounds in found:
        for kind, spent in median_of(rounds).cpu_ms.items():
            costs.setdefault(kind, []).append(spent)
    lines.append("CPU ms a page, by actors")
    for kind, each in sorted(costs.items(), key=lambda item: -statistics.fmean(item[1])):
        lines.append(f"  {kind:26}" + "".join(f"{spent:8.1f}" for spent in each))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--actors", default="1,2,4,8", help="numbers of actors, by commas")
    parser.add_argument("--pages", type=int, default=256, help="pages an actor")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="every round as a line of JSON")
    asked = parser.parse_args()

    found: list[list[Measured]] = []
    for actors in map(int, asked.actors.split(",")):
        found.append([])
        for number in range(asked.rounds):
            one = measure(actors, actors * asked.pages, asked.seed + number)
            found[-1].append(one)
            print(json.dumps(_rounded(asdict(one))) if asked.json else _told(one), flush=True)
    if not asked.json:
        print(table(found))
    short = [rounds for rounds in found if median_of(rounds).of_linear < WANTED]
    sys.exit(1 if short else 0)


def _told(one: Measured) -> str:
    return f"{one.actors} actors: {one.pages_per_s:.2f} pages/s, {one.of_linear:.3f} of linear"


def _rounded(figures: Any) -> Any:
    if isinstance(figures, dict):
        return {key: _rounded(value) for key, value in figures.items()}
    return round(figures, 3) if isinstance(figures, float) else figures


if __name__ == "__main__":
    main()
