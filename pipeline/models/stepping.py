"""What the engine asks of a model half that it runs token by token.

A family without it is asked for whole batches (`pipeline.models.base.Model.generate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pipeline.models.base import Vocabulary
from pipeline.records import Image, Tiles

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.models.decoder import Decoder


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """A prompt as tokens; those that stand for the images' features are True in `is_image`.

    The `shared` first tokens hold no image but those of examples, and begin every prompt alike.
    """

    ids: tuple[int, ...]
    is_image: tuple[bool, ...]
    shared: int = 0


@runtime_checkable
class SteppingModel(Protocol):
    """A model half whose parts the engine can run by themselves. Not thread-safe."""

    @property
    def decoder(self) -> Decoder:
        """The text model."""
        ...

    @property
    def never(self) -> tuple[int, ...]:
        """Tokens that no answer may hold, whatever the grammar."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer as a grammar sees it."""
        ...

    def tokenize(
        self, prompt: str, tiles: Tiles, examples: int, *, alike: bool = True
    ) -> PromptTokens:
        """Return the prompt with each image's placeholder widened to its tiles' tokens.

        The first `examples` images are not the sample's own; see `pipeline.engine.request.Request`.
        """
        ...

    def features(self, tiles: Sequence[Image]) -> list[Tensor]:
        """Encode tiles: (tokens of the tile, width) each, in order, independent of each other."""
        ...

    def tokens_of(self, text: str) -> list[int]:
        """Return the tokens that the model would write this text with, inside an answer."""
        ...

    def text_of(self, ids: Sequence[int]) -> str:
        """Return an answer's text, without special tokens."""
        ...
