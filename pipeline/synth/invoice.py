"""The lines of a simple invoice."""

from __future__ import annotations

import datetime
import random

from pipeline.synth.layout import Piece
from pipeline.synth.lines import Align, Cell, Line, Role, aligned, plain, right, rule
from pipeline.synth.notation import (
    CurrencyPlace,
    Money,
    choose_date_style,
    choose_money,
    date_pieces,
    date_text,
)
from pipeline.synth.receipt import Receipt
from pipeline.synth.till import about_merchant, sum_lines
from pipeline.synth.words import Split, made_up_word

_DATE_LABELS = ("Date: ", "Date ", "Invoice date: ", "Issued: ", "Issued ")
_DUE_LABELS = ("Due: ", "Due date: ", "Due ", "Pay by ")
_COLUMNS = (
    ("Qty", "Item", "Amount"),
    ("Qty", "Description", "Amount"),
    ("QTY", "ITEM", "AMOUNT"),
    ("Qty", "Item", "Price"),
)


def invoice_lines(rng: random.Random, receipt: Receipt, split: Split) -> tuple[Line, ...]:
    """Compose an invoice; words that are not in it are of `split`, too.

    The header takes the same draws from `rng` whatever the items are, so the pages of an invoice
    look alike when each is composed from the same seed.
    """
    money = choose_money(rng, receipt.currency)
    align = rng.choice((Align.LEFT, Align.LEFT, Align.CENTRE))
    merchant = Line((aligned((Piece(receipt.merchant, "merchant"),), align),), role=Role.HEADING)
    title = plain(rng.choice(("INVOICE", "INVOICE", "Invoice", "TAX INVOICE")), align)
    title = Line(title.cells, role=rng.choice((Role.HEADING, Role.BODY)))
    sender = [merchant, *about_merchant(rng, split, align)[:2]]
    heading = [title, *sender] if rng.random() < 0.5 else [*sender, title]
    return (
        *heading,
        *_particulars(rng, receipt),
        *_addressee(rng, split),
        *_table(rng, receipt, money),
        *sum_lines(rng, receipt, money, 0.6),
        *_closing(rng),
    )


def _particulars(rng: random.Random, receipt: Receipt) -> list[Line]:
    """Return the number, the date and, to be told from it, the date when it is due."""
    lines = []
    if rng.random() < 0.8:
        label = rng.choice(("No. ", "Invoice no. ", "Nr. ", "# ", "Invoice #"))
        prefix = rng.choice(("", "", "INV-", "R", f"{receipt.date.year}-"))
        lines.append(plain(f"{label}{prefix}{rng.randint(1, 99999):04d}"))
    style = choose_date_style(rng)
    date = (Piece(rng.choice(_DATE_LABELS)), *date_pieces(style, receipt.date))
    lines.append(Line((Cell(date),), opens_block=True))
    if rng.random() < 0.5:
        due = receipt.date + datetime.timedelta(rng.choice((7, 10, 14, 21, 30, 45, 60)))
        lines.append(plain(rng.choice(_DUE_LABELS) + date_text(style, due)))
    return lines


def _addressee(rng: random.Random, split: Split) -> list[Line]:
    words = [made_up_word(rng, split, 3, 8).capitalize() for _ in range(rng.choice((1, 2, 2)))]
    if rng.random() < 0.3:
        return []
    return [plain(rng.choice(("Bill to: ", "Bill to ", "To: ", "Customer: ")) + " ".join(words))]


def _table(rng: random.Random, receipt: Receipt, money: Money) -> list[Line]:
    qty, item, amount = rng.choice(_COLUMNS)
    qty_first = rng.random() < 0.6
    last: tuple[Piece, ...] = (Piece(amount),)
    if money.place is CurrencyPlace.HEADER:
        last = (Piece(f"{amount} ("), money.currency_piece(), Piece(")"))
        if rng.random() < 0.5:
            last = (money.currency_piece(),)
    ruled = rng.random() < 0.4
    lines = [Line(_row((Piece(qty),), (Piece(item),), last, qty_first), opens_block=True)]
    if ruled:
        lines.append(rule("-", 1.0))
    for index, sold in enumerate(receipt.items):
        count = (Piece(str(sold.qty), f"items.{index}.qty"),)
        name = (Piece(sold.name, f"items.{index}.name"),)
        price = money.line_amount(sold.price, f"items.{index}.price")
        lines.append(Line(_row(count, name, price, qty_first)))
    return lines


def _row(
    qty: tuple[Piece, ...], item: tuple[Piece, ...], amount: tuple[Piece, ...], qty_first: bool
) -> tuple[Cell, ...]:
    if qty_first:
        return Cell(qty), Cell(item, 0.17), right(amount)
    return Cell(item), Cell(qty, 0.62, Align.RIGHT), right(amount)


def _closing(rng: random.Random) -> list[Line]:
    if rng.random() >= 0.3:
        return []
    account = " ".join("".join(rng.choices("0123456789", k=4)) for _ in range(3))
    note = rng.choice((f"IBAN {account}", f"Account {account}", "Payable in 30 days", "Thank you"))
    return [plain(note)]
