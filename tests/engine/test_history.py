"""No slowdown with history, in a small seeded form of `make proof-history`: does it measure?"""

from __future__ import annotations

import runpy
from dataclasses import asdict
from pathlib import Path

import torch

BENCH = Path(__file__).parent.parent.parent / "infra" / "bench" / "engine_history.py"


def test_quarters_ask_for_the_same_work_in_orders_of_their_own() -> None:
    in_quarters = runpy.run_path(str(BENCH))["in_quarters"]
    quarters = in_quarters(distinct=5, size=12, seed=1)
    assert len(quarters) == 4
    assert {tuple(sorted(quarter)) for quarter in quarters} == {
        (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4),
    }
    assert len({tuple(quarter) for quarter in quarters}) == 4
    assert in_quarters(distinct=5, size=12, seed=1) == quarters


def test_the_proof_measures_every_quarter() -> None:
    """Too few samples for a verdict: it is not looked at."""
    bench = runpy.run_path(str(BENCH))
    threads = torch.get_num_threads()
    quarters = bench["run"](samples=16, warm=4, batch=4, seed=1)
    torch.set_num_threads(threads)
    assert [quarter.pages for quarter in quarters] == [4] * 4
    assert all(value > 0 for quarter in quarters for value in asdict(quarter).values())
