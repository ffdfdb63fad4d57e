"""The lines of a till receipt."""

from __future__ import annotations

import math
import random
from decimal import Decimal

from pipeline.synth.layout import Piece
from pipeline.synth.lines import Align, Cell, Line, Role, labelled, plain, right, rule
from pipeline.synth.lines import aligned as cell_at
from pipeline.synth.notation import (
    CurrencyPlace,
    Money,
    choose_date_style,
    choose_money,
    date_pieces,
)
from pipeline.synth.receipt import Receipt
from pipeline.synth.words import Split, made_up_word

_THANKS = (
    *("Thank you", "THANKS", "Come again", "Merci", "Danke", "THANK YOU!", "Have a nice day"),
    *("See you soon", "Please keep receipt", "No refunds", "* * *"),
)
_TOTAL_LABELS = (
    *("TOTAL", "Total", "TOTAL:", "Total:", "Total due", "SUM", "Summe", "TO PAY", "Grand total"),
    *("Amount due", "BALANCE DUE"),
)
_SUBTOTAL_LABELS = ("Subtotal", "SUBTOTAL", "Sub-total", "Sub total", "Sum of items")
_TAX_LABELS = ("Tax", "VAT", "TAX", "MwSt", "TVA")
_DISCOUNT_LABELS = ("Discount", "DISCOUNT", "Rabatt", "Coupon", "Member offer")


def till_lines(rng: random.Random, receipt: Receipt, split: Split) -> tuple[Line, ...]:
    """Compose a receipt; words that are not in it are of `split`, too.

    The header takes the same draws from `rng` whatever the items are, so the pages of a receipt
    look alike when each is composed from the same seed.
    """
    money = choose_money(rng, receipt.currency)
    align = rng.choice((Align.CENTRE, Align.CENTRE, Align.LEFT))
    heading = [
        Line((cell_at((Piece(receipt.merchant, "merchant"),), align),), role=Role.HEADING),
        *about_merchant(rng, split, align),
        *_about_visit(rng, split),
    ]
    date = _date_line(rng, receipt, align)
    date_last = rng.random() < 0.15
    if money.place is CurrencyPlace.HEADER:
        label = rng.choice(("All prices in ", "Currency: ", "Amounts in "))
        pieces = (Piece(label), money.currency_piece())
        heading.append(Line((cell_at(pieces, rng.choice((align, Align.LEFT))),)))
    body = [*_item_lines(rng, receipt, money), *sum_lines(rng, receipt, money, 0.35)]
    lines = [*heading, *body, date] if date_last else [*heading, date, *body]
    return (*lines, *_closing(rng, receipt, money))


def about_merchant(rng: random.Random, split: Split, align: Align) -> list[Line]:
    """Return an address, a telephone number, a tax number, or none of them."""
    lines = []
    if rng.random() < 0.5:
        street = made_up_word(rng, split, 3, 9).capitalize()
        kind = rng.choice(("St", "Rd", "Ave", "Str.", "Street", "Road", "Lane", "Weg"))
        lines.append(plain(f"{rng.randint(1, 199)} {street} {kind}", align))
    if rng.random() < 0.25:
        town = made_up_word(rng, split, 4, 9).capitalize()
        lines.append(plain(f"{rng.randint(1000, 99999)} {town}", align))
    if rng.random() < 0.25:
        first, second = _digits(rng, 2, 4), _digits(rng, 3, 6)
        lines.append(plain(f"{rng.choice(('Tel', 'Tel.', 'Tel:', 'Ph'))} {first} {second}", align))
    if rng.random() < 0.2:
        label = rng.choice(("VAT ", "VAT No ", "UID ", "Tax ID ", "#", "VAT GB", "USt-ID DE"))
        lines.append(plain(label + _digits(rng, 6, 9), align))
    return lines


def sum_lines(
    rng: random.Random, receipt: Receipt, money: Money, subtotal_share: float
) -> list[Line]:
    """Return what stands between the items and the end of the sums, the total last."""
    lines = [rule(rng.choice("---=-"), rng.choice((1.0, 1.0, 0.5)))] if rng.random() < 0.45 else []
    changed = bool(receipt.discount or receipt.added_tax)
    if rng.random() < (0.8 if changed else subtotal_share):
        label = rng.choice(_SUBTOTAL_LABELS)
        lines.append(labelled(label, money.line_amount(receipt.subtotal), optional=True))
    if receipt.discount:
        label = rng.choice(_DISCOUNT_LABELS)
        lines.append(labelled(label, money.line_amount(-receipt.discount)))
    rate = f"{rng.choice(_TAX_LABELS)} {receipt.tax_percent}%"
    if receipt.added_tax:
        lines.append(labelled(rate, money.line_amount(receipt.added_tax)))
    total = _total_line(rng, receipt, money)
    if receipt.added_tax or rng.random() >= 0.3:
        return [*lines, total]
    included = rng.choice((f"incl. {rate}", rate, f"{rate} incl."))
    tax = labelled(included, money.line_amount(receipt.included_tax), optional=True)
    return [*lines, total, tax] if included != rate or rng.random() < 0.5 else [*lines, tax, total]


def _total_line(rng: random.Random, receipt: Receipt, money: Money) -> Line:
    label = rng.choice(_TOTAL_LABELS)
    left: tuple[Piece, ...] = (Piece(label),)
    if money.place is CurrencyPlace.LABEL:
        left = (Piece(label.rstrip(":") + " "), money.currency_piece())
        if rng.random() < 0.4:
            left = (Piece(label.rstrip(":") + " ("), money.currency_piece(), Piece(")"))
    cells = (Cell(left), right(money.total_amount(receipt.total)))
    return Line(cells, role=Role.TOTAL, opens_block=True)


def _about_visit(rng: random.Random, split: Split) -> list[Line]:
    lines = []
    if rng.random() < 0.12:
        name = made_up_word(rng, split, 3, 7).capitalize()
        lines.append(plain(f"{rng.choice(('Cashier', 'Served by', 'Clerk:', 'Kasse'))} {name}"))
    if rng.random() < 0.15:
        label = rng.choice(("Receipt #", "Receipt no ", "Bon ", "Ticket ", "Trans: ", "Table "))
        lines.append(plain(label + _digits(rng, 2, 6)))
    return lines


def _date_line(rng: random.Random, receipt: Receipt, align: Align) -> Line:
    pieces = date_pieces(choose_date_style(rng), receipt.date)
    if rng.random() < 0.3:
        hour = rng.choice((" ", "  ")) + f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
        pieces = (*pieces, Piece(hour))
    if rng.random() < 0.5:
        pieces = (Piece(rng.choice(("Date: ", "Date ", "DATE ", "Datum: "))), *pieces)
    return Line((cell_at(pieces, rng.choice((align, Align.LEFT, Align.RIGHT))),))


def _item_lines(rng: random.Random, receipt: Receipt, money: Money) -> list[Line]:
    lines = [rule(rng.choice("-=*-"), rng.uniform(0.5, 1))] if rng.random() < 0.4 else []
    style = rng.choice(("2 Tea", "2 Tea", "2x Tea", "Tea x2", "2 x Tea", "Tea (2)"))
    for index, item in enumerate(receipt.items):
        qty = Piece(str(item.qty), f"items.{index}.qty")
        name = Piece(item.name, f"items.{index}.name")
        left = {
            "2 Tea": (qty, Piece(" "), name),
            "2x Tea": (qty, Piece("x "), name),
            "2 x Tea": (qty, Piece(" x "), name),
            "Tea x2": (name, Piece(" x"), qty),
            "Tea (2)": (name, Piece(" ("), qty, Piece(")")),
        }[style]
        price = money.line_amount(item.price, f"items.{index}.price")
        lines.append(Line((Cell(left), right(price)), opens_block=index == 0))
    return lines


def _closing(rng: random.Random, receipt: Receipt, money: Money) -> list[Line]:
    lines = []
    chance = rng.random()
    if chance < 0.15:
        card = rng.choice(("VISA", "CARD", "Mastercard", "Debit", "EC-Karte"))
        lines.append(plain(f"{card} ****{_digits(rng, 4, 4)}", rng.choice(tuple(Align)[:2])))
    elif chance < 0.27:
        paid = Decimal(math.ceil((receipt.total + 1) / 10) * 10)
        cash, change = rng.choice((("Cash", "Change"), ("CASH", "CHANGE"), ("Bar", "Rest")))
        lines.append(labelled(cash, money.line_amount(paid), optional=True))
        lines.append(labelled(change, money.line_amount(paid - receipt.total), optional=True))
    if rng.random() < 0.4:
        lines.append(plain(rng.choice(_THANKS), Align.CENTRE))
    return lines


def _digits(rng: random.Random, fewest: int, most: int) -> str:
    return "".join(rng.choices("0123456789", k=rng.randint(fewest, most)))
