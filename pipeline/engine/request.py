"""What goes into the engine."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.grammar import Grammar
from pipeline.records import Image


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to answer: a prompt with one image placeholder a page, and each page's tiles."""

    prompt: str
    tiles: tuple[tuple[Image, ...], ...]
    max_new_tokens: int
    grammar: Grammar | None = None
