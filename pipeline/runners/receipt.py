"""What a commit tells the driver, and what many of them add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a commit tells the driver: counts of pages and tokens, and seconds of work by stage.

    `documents` counts those whose last selected page is among the rows.
    """

    pages: int
    documents: int
    states: dict[str, int]
    kinds: dict[str, int]
    seconds: dict[str, float]
    prompt_tokens: int = 0
    output_tokens: int = 0

    def to_json(self) -> str:
        """Return the receipt as JSON text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json` back."""
        return cls(**json.loads(text))


def sums(receipts: Iterable[Receipt]) -> Receipt:
    """Add receipts up."""
    pages = documents = prompt_tokens = output_tokens = 0
    states: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for receipt in receipts:
        pages += receipt.pages
        documents += receipt.documents
        prompt_tokens += receipt.prompt_tokens
        output_tokens += receipt.output_tokens
        states.update(receipt.states)
        kinds.update(receipt.kinds)
        for stage, spent in receipt.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + spent
    return Receipt(
        pages, documents, dict(states), dict(kinds), seconds, prompt_tokens, output_tokens
    )
