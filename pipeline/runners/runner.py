"""What a runner is: a way to carry a run's steps out. `local` and `ray_data` are the two."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from pipeline.records import Plan
from pipeline.runners.receipt import Receipt


class Runner(Protocol):
    """Carries out the steps of `pipeline.runners.steps`. A context manager.

    Both passes stream: what they take and give is never held whole.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def plan(self, listing: str) -> Iterator[Plan]:
        """Plan the documents listed in a file of the output, in its order."""
        ...

    def starting(self, documents: int, pages: int) -> None:
        """Learn how much the shards that come next hold, for those who watch from outside."""
        ...

    def pages(self, shards: str) -> Iterator[Receipt]:
        """Draw, answer and commit the shards in a file of the output; a receipt a commit."""
        ...
