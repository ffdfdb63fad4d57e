"""Finding the sample that makes a batch fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.errors import ItemError
from pipeline.records import FailureKind

T = TypeVar("T")


def halving(
    work: Callable[[Sequence[T]], None], items: Sequence[T], failed: Callable[[T, ItemError], None]
) -> None:
    """Do `work` on all items, or if it raises on each half, down to the items that fail alone."""
    try:
        work(items)
    except Exception as error:  # a model may raise anything
        if len(items) == 1:
            failed(items[0], _blame(error))
            return
        middle = len(items) // 2
        halving(work, items[:middle], failed)
        halving(work, items[middle:], failed)


def _blame(error: Exception) -> ItemError:
    kind = FailureKind.OUT_OF_MEMORY if isinstance(error, MemoryError) else FailureKind.MODEL_ERROR
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return ItemError(kind, line[:500])
