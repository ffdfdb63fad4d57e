"""What goes into the engine."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.grammar import Grammar
from pipeline.records import Tiles


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to answer: a prompt with one image placeholder a page, and each page's tiles.

    `page_text` is what the pages' text layers hold, if they do; it only makes the answer faster.
    """

    prompt: str
    tiles: Tiles
    max_new_tokens: int
    grammar: Grammar | None = None
    page_text: str = ""
