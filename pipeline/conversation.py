"""What a model is told and shown, before any family makes a prompt of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Slot(Enum):
    """A place in a turn that a sample fills: one page's image, or what its text layer prints."""

    IMAGE = "image"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one speaker says: text, and slots, in order."""

    role: Role
    parts: tuple[str | Slot, ...]

    @property
    def images(self) -> int:
        """How many images the turn shows."""
        return self.parts.count(Slot.IMAGE)


Conversation = Sequence[Turn]
"""Turns in order. The last one is the user's, and the model is to answer it."""


def count_images(conversation: Conversation) -> int:
    """Return how many images a conversation shows."""
    return sum(turn.images for turn in conversation)
