"""No slowdown with history, in a small seeded form of `make proof-history`: does it measure?"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

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
    """Too few samples for a verdict, so the exit code is not looked at."""
    size = ["--samples", "16", "--runs", "1", "--warm", "4", "--batch", "4"]
    done = subprocess.run(
        [sys.executable, str(BENCH), "--json", *size],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    (quarters,) = found["runs"]
    assert [quarter["pages"] for quarter in quarters] == [4] * 4
    assert all(value > 0 for quarter in quarters for value in quarter.values())
    assert found["ratio"] > 0
