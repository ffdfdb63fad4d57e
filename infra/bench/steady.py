"""The rate of a run in its steady state, without its start and its end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression

STEADY = (0.25, 0.85)
"""The part of the pages, in the order of their commits, that is the steady state."""


def steady(committed: Sequence[float]) -> Sequence[float]:
    """Return the times of the steady state, of pages in the order of their commits."""
    low, high = (round(part * len(committed)) for part in STEADY)
    return committed[low:high]


def steady_rate(committed: Sequence[float]) -> float:
    """Return pages a second, of the seconds at which each page was committed.

    The slope of the line through all of the steady state: actors that end their shards together
    commit in bursts, and a rate between two moments depends on how many of a burst lie before.
    """
    times = steady(committed)
    return linear_regression(times, range(len(times))).slope
