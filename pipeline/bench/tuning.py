"""The batch sizes at which transformers' own ways are quickest: it is those we are held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.bench.ways import by_generate_batch, by_static_batches, vision_and_prefill
from pipeline.bench.workload import Work, part
from pipeline.errors import RunError

SIZES = (8, 16, 32, 64)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Samples a batch of static `generate`, samples at a time of vision and prefill alone, and
    requests side by side of `generate_batch`.

    The last is None if it does not run here: it is made for text, and was talked into images.
    """

    static: int
    reading: int
    generate_batch: int | None


def best_sizes(work: Work, say: Say) -> Sizes:
    """Try each way, on all samples or the first 64.

    Raises RunError if a batch of 8 does not fit into memory.
    """
    say("looking for the batches that suit each way best")
    some = part(work, slice(SIZES[-1]))
    most = len(work.samples)
    by_static_batches(part(work, slice(SIZES[0])), SIZES[0])  # the first of all is slower
    static = _best(most, lambda size: by_static_batches(work, size).seconds)
    reading = _best(most, lambda size: sum(vision_and_prefill(some, size)))
    if static is None or reading is None:
        raise RunError("no batch of samples fits into memory, or they are fewer than 8")
    try:
        continuous = _best(most, lambda size: by_generate_batch(some, size).seconds)
    except Exception as error:  # it leans on what transformers promises nobody
        say(f"generate_batch does not run here: {type(error).__name__}: {error}")
        continuous = None
    return Sizes(static, reading, continuous)


def _best(most: int, seconds_at: Callable[[int], float]) -> int | None:
    """Return the quickest size, from the largest down until it gets slower."""
    best, least = None, math.inf
    for size in reversed([size for size in SIZES if size <= most]):
        try:
            seconds = seconds_at(size)
        except MemoryError:
            continue
        if seconds > least:
            break
        best, least = size, seconds
    return best
