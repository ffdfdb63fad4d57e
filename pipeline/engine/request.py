"""What goes into the engine."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.engine.grammar import Grammar
from pipeline.records import Tiles
from pipeline.tiles import Together


@dataclass(frozen=True, slots=True)
class Request:
    """One sample to answer: a prompt with one placeholder an image, and each page's tiles.

    `page_text` is what the pages' text layers hold, if they do; it only makes the answer faster.
    `examples` are images that the prompt shows before the sample's own. They are the same, and so
    is the prompt up to the last of them, in all requests of one `examples_key`: read once for all.
    `alike` prompts go on alike up to the first image of the sample's own, or up to their end.
    """

    prompt: str
    tiles: Tiles
    max_new_tokens: int
    grammar: Grammar | None = None
    page_text: str = ""
    examples: Tiles = ()
    examples_key: str = ""
    alike: bool = True

    @property
    def all_tiles(self) -> Tiles:
        """The tiles of every image, in the prompt's order."""
        return Together(self.examples, self.tiles) if self.examples else self.tiles
