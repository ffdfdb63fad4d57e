"""Finding the sample that makes a batch fail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.errors import ItemError, printable
from pipeline.models.base import DeviceLost
from pipeline.records import FailureKind

T = TypeVar("T")


def halving(
    work: Callable[[Sequence[T]], None], items: Sequence[T], failed: Callable[[T, ItemError], None]
) -> None:
    """Do `work` on all items, or if it raises on each half, down to the items that fail alone.

    Raises DeviceLost if the device is: it would fail on every item.
    """
    error = _attempt(work, items)
    if error is None:
        return
    if error.kind is FailureKind.OUT_OF_MEMORY:
        _give_back_memory()
    if len(items) == 1:
        failed(items[0], error)
        return
    middle = len(items) // 2
    halving(work, items[:middle], failed)
    halving(work, items[middle:], failed)


def _attempt(work: Callable[[Sequence[T]], None], items: Sequence[T]) -> ItemError | None:
    """Return what went wrong, if anything did.

    Apart from `halving`, so that the exception and all that its frames hold are gone when the
    work is tried again: a batch that lacked memory is not to lack it for its halves as well.
    """
    try:
        work(items)
    except DeviceLost:
        raise
    except Exception as error:  # a model may raise anything
        return _blame(error)
    return None


def _blame(error: Exception) -> ItemError:
    if isinstance(error, ItemError):
        return ItemError(error.kind, error.message)  # without its frames
    kind = FailureKind.OUT_OF_MEMORY if isinstance(error, MemoryError) else FailureKind.MODEL_ERROR
    return ItemError(kind, printable(f"{type(error).__name__}: {error}")[:500])


def _give_back_memory() -> None:
    """Give what torch holds in reserve on a GPU back to it, if the model has loaded torch."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
