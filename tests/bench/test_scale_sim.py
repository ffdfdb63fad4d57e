"""The simulation keeps its own laws, and meets what queueing theory and measurement say."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from scale_sim import Clock, Graph, Station, simulate
from scale_tables import simulated

BENCH = Path(__file__).parents[2] / "infra" / "bench"

FREE = Graph(
    pages=1600,
    actors=1,
    slots=1,
    page_s=0.2,
    spread=0.0,
    cores=64,
    draw_s=0.001,
    answer_s=0.0,
    commit_s=0.001,
    driver_s=0.0,
    sample_bytes=1000,
)
"""A graph that nothing but its actors holds up."""


def test_every_page_is_committed_once_whatever_holds_it_up() -> None:
    held_up = replace(FREE, pages=1603, slots=5, spread=0.5, cores=1, driver_s=0.5)
    assert simulate(held_up).committed == 1603


@pytest.mark.parametrize("actors", [1, 2, 4, 8])
def test_more_actors_answer_more_pages(actors: int) -> None:
    found = simulate(replace(FREE, actors=actors, pages=1600 * actors))
    assert found.pages_per_s == pytest.approx(5 * actors, rel=0.03)


def test_cores_are_the_bound_where_they_are_few() -> None:
    found = simulate(replace(FREE, pages=16_000, actors=64, cores=2, draw_s=0.08, commit_s=0.02))
    assert found.pages_per_s == pytest.approx(2 / 0.1, rel=0.05)
    assert found.cores_busy > 0.95


def test_the_driver_is_the_bound_where_its_calls_take_longest() -> None:
    little_room = 8 * 16 * 1000.0
    graph = replace(FREE, pages=16_000, actors=64, driver_s=0.16, store_bytes=little_room * 64)
    assert simulate(graph).pages_per_s == pytest.approx(16 / 0.16, rel=0.05)


def test_drawing_waits_for_room_in_the_object_store() -> None:
    graph = replace(FREE, store_bytes=5 * 16 * 1000.0)
    found = simulate(graph)
    assert found.store_peak <= graph.store_bytes
    assert found.store_peak > 0.9 * graph.store_bytes


def test_the_same_seed_gives_the_same_run() -> None:
    one, same, other = (simulate(replace(FREE, spread=0.3, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_a_queue_waits_as_long_as_the_formula_for_fixed_service_says(load: float) -> None:
    """M/D/1: the mean wait is load / (2 (1 - load)) times the service."""
    clock, chance, waits = Clock(), random.Random(0), []
    station = Station(clock, 1)

    def arrive() -> None:
        came = clock.now
        station.serve(1.0, lambda: waits.append(clock.now - came - 1.0))
        if len(waits) < 20_000:
            clock.after(chance.expovariate(load), arrive)

    arrive()
    clock.run()
    expected = load / (2 * (1 - load))
    assert sum(waits) / len(waits) == pytest.approx(expected, rel=0.1)


def test_the_simulation_meets_the_runs_that_were_measured() -> None:
    costs, runs = (
        json.loads((BENCH / name).read_text()) for name in ("stage_costs.json", "scale_runs.json")
    )
    for actors, measured, rate in simulated(costs, runs, simulate):
        assert rate == pytest.approx(measured, rel=0.15), actors
