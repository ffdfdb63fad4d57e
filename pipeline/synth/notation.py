"""How a document writes its amounts, its currency and its dates."""

from __future__ import annotations

import datetime
import random
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto

from pipeline.synth.layout import Piece
from pipeline.synth.receipt import CURRENCY_SIGNS

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

# Y and y: the year in four and two digits; M and D: digits; b, B and f: Mar, MAR and March.
_DATE_STYLES = {
    "Y-M-D": 16,
    "D/M/Y": 16,
    "D.M.Y": 16,
    "D b Y": 10,
    "D B Y": 6,
    "Y/M/D": 6,
    "D-M-Y": 5,
    "D.M.y": 7,
    "b D, Y": 6,
    "B D, Y": 2,
    "D-b-Y": 4,
    "D f Y": 3,
    "f D, Y": 3,
}


class CurrencyPlace(Enum):
    """Where a document states its currency."""

    TOTAL = auto()  # beside the total
    LINES = auto()  # beside each amount
    LABEL = auto()  # in the label of the total
    HEADER = auto()  # once, above the items


@dataclass(frozen=True, slots=True)
class Money:
    """How amounts are written: `point` before the cents, `group` between thousands."""

    point: str
    group: str
    currency: str
    place: CurrencyPlace
    currency_first: bool
    space: str

    def number(self, amount: Decimal) -> str:
        """Return the amount in digits."""
        text = f"{amount:,.2f}" if self.group else f"{amount:.2f}"
        return "".join({",": self.group, ".": self.point}.get(mark, mark) for mark in text)

    def line_amount(self, amount: Decimal, field: str = "") -> tuple[Piece, ...]:
        """Return an amount other than the total, with its currency if each amount has it."""
        number = Piece(self.number(amount), field)
        return self._joined(number, "") if self.place is CurrencyPlace.LINES else (number,)

    def total_amount(self, total: Decimal) -> tuple[Piece, ...]:
        """Return the total, with the currency unless that stands elsewhere."""
        number = Piece(self.number(total), "total")
        if self.place in (CurrencyPlace.LABEL, CurrencyPlace.HEADER):
            return (number,)
        return self._joined(number, "currency")

    def currency_piece(self) -> Piece:
        """Return the currency, to stand where it is stated but beside an amount."""
        return Piece(self.currency, "currency")

    def _joined(self, number: Piece, field: str) -> tuple[Piece, ...]:
        currency = Piece(self.currency, field)
        space = (Piece(self.space),) if self.space else ()
        return (currency, *space, number) if self.currency_first else (number, *space, currency)


def choose_money(rng: random.Random, currency: str) -> Money:
    """Return a notation fit for the currency; decimal commas go with EUR and CHF for the most."""
    comma = rng.random() < {"EUR": 0.45, "CHF": 0.3}.get(currency, 0.04)
    grouped = rng.random() < 0.5
    sign = CURRENCY_SIGNS[currency]
    is_code = sign == currency or rng.random() < 0.45
    place = rng.choices(tuple(CurrencyPlace), (0.62, 0.14, 0.14, 0.10))[0]
    first = rng.random() < (0.35 if comma else 0.65)
    return Money(
        point="," if comma else ".",
        group=("." if comma else ",") if grouped else "",
        currency=currency if is_code else sign,
        place=place,
        currency_first=first,
        space=" " if is_code or rng.random() < (0.1 if first else 0.7) else "",
    )


def choose_date_style(rng: random.Random) -> str:
    """Return a pattern for `date_pieces`: the day comes first unless a year or a name does."""
    return rng.choices(tuple(_DATE_STYLES), tuple(_DATE_STYLES.values()))[0]


def date_pieces(style: str, date: datetime.date) -> tuple[Piece, ...]:
    """Return the date as printed, each part tagged with the part of the record's date it states."""
    name = _MONTHS[date.month - 1]
    parts = {
        "Y": Piece(f"{date.year}", "date.year"),
        "y": Piece(f"{date.year % 100:02d}", "date.year"),
        "M": Piece(f"{date.month:02d}", "date.month"),
        "D": Piece(f"{date.day:02d}", "date.day"),
        "b": Piece(name[:3], "date.month"),
        "B": Piece(name[:3].upper(), "date.month"),
        "f": Piece(name, "date.month"),
    }
    return tuple(parts.get(symbol, Piece(symbol)) for symbol in style)


def date_text(style: str, date: datetime.date) -> str:
    """Return the date as printed."""
    return "".join(piece.text for piece in date_pieces(style, date))
