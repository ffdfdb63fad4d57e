"""Layout: a receipt -> placed runs of text. Pure: no fonts, no pixels.

Every run keeps the pieces it was made of, so that each printed character can be traced to the
field it states.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, auto

from pipeline.synth.receipt import CURRENCY_SIGNS, Receipt
from pipeline.synth.typeface import ADVANCE, Typeface
from pipeline.synth.words import Split, made_up_word

WIDTH, HEIGHT = 168, 224
"""The page: pixels of the bundled model's canvas, or points of a PDF page."""

FONT_SIZE = 10
_CHARACTER = FONT_SIZE * ADVANCE
_COLUMNS = int((WIDTH - 10) / _CHARACTER)
_PITCH_LEAST, _PITCH_MOST = 14, 18
_LOWEST_START = 40

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text; `field` is the path of the record's value it states, empty if none.

    A date is stated in parts: `date.year`, `date.month`, `date.day`.
    """

    text: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """Text on one line, from `x`, `top` (of the font's ascent), in pixels from the top left."""

    x: float
    top: float
    pieces: tuple[Piece, ...]
    bold: bool

    @property
    def text(self) -> str:
        """The run as printed."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Layout:
    """One page of `WIDTH` x `HEIGHT`, set in one typeface at `FONT_SIZE`."""

    typeface: Typeface
    runs: tuple[Run, ...]


class _Align(Enum):
    LEFT = auto()
    CENTRE = auto()


@dataclass(frozen=True, slots=True)
class _Line:
    """What is printed on a line; `right` is set against the right margin."""

    left: tuple[Piece, ...]
    right: tuple[Piece, ...] = ()
    align: _Align = _Align.LEFT
    emphasis: bool = False


def lay_out(rng: random.Random, receipt: Receipt, split: Split) -> Layout:
    """Compose and place one page; words that are not in the receipt are of `split`, too.

    The header takes the same draws from `rng` whatever the items are, so the pages of a receipt
    look alike when each is laid out from the same seed. Raises ValueError if the page overflows.
    """
    typeface = rng.choice(tuple(Typeface))
    bold_emphasis = rng.random() < 0.3
    heading = _heading(rng, receipt, split)
    date = _date_line(rng, receipt, heading[0].align)
    date_last = rng.random() < 0.15
    body = _item_lines(rng, receipt) + _total_lines(rng, receipt)
    lines = (*heading, *body, date) if date_last else (*heading, date, *body)
    return Layout(typeface, _place(rng, (*lines, *_closing(rng)), bold_emphasis))


def _heading(rng: random.Random, receipt: Receipt, split: Split) -> tuple[_Line, ...]:
    align = rng.choice((_Align.CENTRE, _Align.CENTRE, _Align.LEFT))
    lines = [_Line((Piece(receipt.merchant, "merchant"),), align=align, emphasis=True)]
    if rng.random() < 0.5:
        street = made_up_word(rng, split, 3, 9).capitalize()
        address = f"{rng.randint(1, 199)} {street} {rng.choice(('St', 'Rd', 'Ave', 'Str.'))}"
        lines.append(_Line((Piece(address),), align=align))
    if rng.random() < 0.3:
        digits = "".join(rng.choices("0123456789", k=rng.randint(5, 9)))
        label = rng.choice(("Tel ", "VAT ", "Tel: ", "#"))
        lines.append(_Line((Piece(label + digits),), align=align))
    return tuple(lines)


def _date_line(rng: random.Random, receipt: Receipt, heading_align: _Align) -> _Line:
    year = Piece(f"{receipt.date.year}", "date.year")
    month = Piece(f"{receipt.date.month:02d}", "date.month")
    month_name = Piece(_MONTHS[receipt.date.month - 1], "date.month")
    day = Piece(f"{receipt.date.day:02d}", "date.day")
    first, separator, second, third = rng.choice(
        (
            (year, "-", month, day),
            (day, "/", month, year),
            (day, ".", month, year),
            (day, " ", month_name, year),
            (year, "/", month, day),
        )
    )
    pieces = [first, Piece(separator), second, Piece(separator), third]
    if rng.random() < 0.3:
        pieces.append(Piece(f" {rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"))
    if rng.random() < 0.5:
        pieces.insert(0, Piece(rng.choice(("Date: ", "Date ", "DATE "))))
    return _Line(tuple(pieces), align=rng.choice((heading_align, _Align.LEFT)))


def _item_lines(rng: random.Random, receipt: Receipt) -> tuple[_Line, ...]:
    lines = []
    if rng.random() < 0.5:
        mark, length = rng.choice("-=*"), rng.randint(_COLUMNS // 2, _COLUMNS)
        lines.append(_Line((Piece(mark * length),)))
    style = rng.choice(("2 Tea", "2x Tea", "Tea x2"))
    for index, item in enumerate(receipt.items):
        qty = Piece(str(item.qty), f"items.{index}.qty")
        name = Piece(item.name, f"items.{index}.name")
        price = Piece(f"{item.price:.2f}", f"items.{index}.price")
        left = {
            "2 Tea": (qty, Piece(" "), name),
            "2x Tea": (qty, Piece("x "), name),
            "Tea x2": (name, Piece(" x"), qty),
        }[style]
        lines.append(_Line(left, (price,)))
    return tuple(lines)


def _total_lines(rng: random.Random, receipt: Receipt) -> tuple[_Line, ...]:
    lines = []
    if rng.random() < 0.5:
        lines.append(_Line((Piece("-" * _COLUMNS),)))
    amount = _total_amount(rng, receipt)
    if rng.random() < 0.25:
        tax = receipt.total * Decimal("0.2")
        label = rng.choice(("Tax", "VAT", "incl. tax"))
        lines.append(_Line((Piece(label),), (Piece(f"{tax:.2f}"),)))
    label = rng.choice(("TOTAL", "Total", "TOTAL:", "Total due", "SUM"))
    lines.append(_Line((Piece(label),), amount, emphasis=True))
    return tuple(lines)


def _total_amount(rng: random.Random, receipt: Receipt) -> tuple[Piece, ...]:
    """Return the total beside its currency: "€12.50", "12.50 €", "EUR 12.50" or "12.50 EUR"."""
    total = Piece(f"{receipt.total:.2f}", "total")
    sign = CURRENCY_SIGNS[receipt.currency]
    if sign != receipt.currency and rng.random() < 0.5:
        currency = Piece(sign, "currency")
        return (currency, total) if rng.random() < 0.6 else (total, Piece(" "), currency)
    currency = Piece(receipt.currency, "currency")
    return (currency, Piece(" "), total) if rng.random() < 0.5 else (total, Piece(" "), currency)


def _closing(rng: random.Random) -> tuple[_Line, ...]:
    if rng.random() >= 0.4:
        return ()
    thanks = rng.choice(("Thank you", "THANKS", "Come again", "Merci", "Danke"))
    return (_Line((Piece(thanks),), align=_Align.CENTRE),)


def _place(rng: random.Random, lines: tuple[_Line, ...], bold_emphasis: bool) -> tuple[Run, ...]:
    room = (HEIGHT - 8 - FONT_SIZE) // (len(lines) - 1)
    if room < _PITCH_LEAST:
        raise ValueError(f"{len(lines)} lines do not fit on a page of {HEIGHT}")
    pitch = rng.randint(_PITCH_LEAST, min(room, _PITCH_MOST))
    height = pitch * (len(lines) - 1) + FONT_SIZE
    top = rng.randint(3, max(3, min(HEIGHT - height - 4, _LOWEST_START)))
    left = rng.randint(2, 8)
    width = WIDTH - left - rng.randint(2, 6)
    runs: list[Run] = []
    for index, line in enumerate(lines):
        y, bold = top + index * pitch, bold_emphasis and line.emphasis
        slack = width - _width(line.left)
        x = left + slack / 2 if line.align is _Align.CENTRE else left
        runs.append(Run(x, y, line.left, bold))
        if line.right:
            runs.append(Run(left + width - _width(line.right), y, line.right, bold))
    return tuple(runs)


def _width(pieces: tuple[Piece, ...]) -> float:
    return sum(len(piece.text) for piece in pieces) * _CHARACTER
