"""The batch sizes at which transformers' own ways are quickest: it is those we are held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.bench.ways import Measured, by_generate_batch, by_static_batches
from pipeline.bench.workload import Work
from pipeline.errors import RunError

SIZES = (8, 16, 32, 64)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Samples a batch of static `generate`, and requests side by side of `generate_batch`.

    The latter is None if it does not run here: it is made for text, and was talked into images.
    """

    static: int
    generate_batch: int | None


def best_sizes(work: Work, some: int, say: Say) -> Sizes:
    """Try each way on all samples, `generate_batch` on the first `some`.

    Raises RunError if static `generate` fits no batch.
    """
    say("looking for the best batch of static generate")
    static = _best(len(work.samples), lambda size: by_static_batches(work, size))
    if static is None:
        raise RunError("no batch of samples fits into memory, or they are fewer than 8")
    say("looking for the best batch of generate_batch")
    try:
        return Sizes(static, _best(some, lambda size: by_generate_batch(work, size, some)))
    except Exception as error:  # it leans on what transformers promises nobody
        say(f"generate_batch does not run here: {type(error).__name__}: {error}")
        return Sizes(static, None)


def _best(most: int, answer: Callable[[int], Measured]) -> int | None:
    """Return the quickest size, from the largest down until it gets slower."""
    best, least = None, math.inf
    for size in reversed([size for size in SIZES if size <= most]):
        try:
            seconds = answer(size).seconds
        except MemoryError:
            continue
        if seconds > least:
            break
        best, least = size, seconds
    return best
