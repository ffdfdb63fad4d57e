"""What is printed on a line, before anything decides where: cells on a line, lines on a page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from pipeline.synth.layout import Piece


class Align(Enum):
    """Which part of a cell stands at its place."""

    LEFT = auto()
    CENTRE = auto()
    RIGHT = auto()


class Role(Enum):
    """What a line is to the page; the first two may be set larger or bolder."""

    HEADING = auto()
    TOTAL = auto()
    BODY = auto()


@dataclass(frozen=True, slots=True)
class Cell:
    """A stretch of text at `place`, a share of the width between the margins."""

    pieces: tuple[Piece, ...]
    place: float = 0.0
    align: Align = Align.LEFT

    @property
    def text(self) -> str:
        """The cell as printed."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Line:
    """The cells of a line, from left to right.

    An `optional` line gives way where the page is too full or too narrow. A `rule` is one
    character, to be repeated over that share of the width.
    """

    cells: tuple[Cell, ...]
    role: Role = Role.BODY
    optional: bool = False
    rule: float = 0.0
    opens_block: bool = False


def plain(text: str, align: Align = Align.LEFT, *, optional: bool = True) -> Line:
    """Return a line that states nothing of the record."""
    return Line((aligned((Piece(text),), align),), optional=optional)


def rule(mark: str, share: float) -> Line:
    """Return a line of a repeated character."""
    return Line((Cell((Piece(mark),)),), optional=True, rule=share)


def labelled(
    label: str, amount: tuple[Piece, ...], role: Role = Role.BODY, *, optional: bool = False
) -> Line:
    """Return a label with an amount at the right margin."""
    return Line((Cell((Piece(label),)), right(amount)), role=role, optional=optional)


def aligned(pieces: tuple[Piece, ...], align: Align) -> Cell:
    """Return a cell at the left or right margin, or in the middle."""
    return Cell(pieces, {Align.LEFT: 0.0, Align.CENTRE: 0.5, Align.RIGHT: 1.0}[align], align)


def right(pieces: tuple[Piece, ...]) -> Cell:
    """Return a cell against the right margin."""
    return aligned(pieces, Align.RIGHT)
