"""Altered documents: one character of one value changed, all else drawn the same.

Who reads both documents right has read the page; who guesses from what is likely has not.
"""

from __future__ import annotations

import datetime
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from string import ascii_lowercase, ascii_uppercase, digits

from pipeline.synth.document import SynthDocument
from pipeline.synth.layout import Layout, Piece, Run
from pipeline.synth.receipt import Receipt
from pipeline.synth.typeface import advances
from pipeline.synth.values import amount_split, date_split
from pipeline.synth.words import split_of


@dataclass(frozen=True, slots=True)
class _Change:
    """Another text for one piece of one run, and the receipt that it then states."""

    run: int
    piece: int
    new: Piece
    receipt: Receipt


def altered(document: SynthDocument, rng: random.Random) -> tuple[SynthDocument, str]:
    """Return the document with one digit or letter changed, and the field of the changed piece.

    The change is in the merchant, an item's name, a price, the total or the date; the new value
    is of the split of the old one, as wide as it, and in the new truth. Sums need not add up any
    more. Raises ValueError if the document has several pages, for each repeats some values.
    """
    if len(document.pages) > 1:
        raise ValueError(f"only a document of one page is altered, not of {len(document.pages)}")
    (page,) = document.pages
    by_kind: dict[str, list[_Change]] = defaultdict(list)
    for change in _changes(page.layout, document.receipt):
        by_kind[_kind(change.new.field)].append(change)
    change = rng.choice(by_kind[rng.choice(sorted(by_kind))])
    layout = _with(page.layout, change)
    changed = replace(page, receipt=change.receipt, layout=layout)
    return SynthDocument(change.receipt, (changed,)), change.new.field


def _kind(field: str) -> str:
    """Return `name` for items.0.name, `date` for date.day, and so on."""
    parts = field.split(".")
    return parts[-1] if parts[0] == "items" else parts[0]


def _changes(layout: Layout, receipt: Receipt) -> Iterator[_Change]:
    for run_index, run in enumerate(layout.runs):
        for piece_index, piece in enumerate(run.pieces):
            if _kind(piece.field) not in ("merchant", "name", "price", "total", "date"):
                continue
            for text in _one_character_off(run, piece):
                after = _restated(receipt, piece, text)
                if after is not None:
                    yield _Change(run_index, piece_index, Piece(text, piece.field), after)


def _one_character_off(run: Run, piece: Piece) -> Iterator[str]:
    """Yield all texts of the same width that differ in one digit or letter of the same case."""
    widths = advances(run.typeface)
    for index, old in enumerate(piece.text):
        for alphabet in (digits, ascii_lowercase, ascii_uppercase):
            for new in alphabet if old in alphabet else "":
                if new != old and widths[new] == widths[old]:
                    yield piece.text[:index] + new + piece.text[index + 1 :]


def _restated(receipt: Receipt, piece: Piece, text: str) -> Receipt | None:
    """Return what the receipt states with `text` for the piece; None if it may not be changed."""
    kind = _kind(piece.field)
    if kind == "merchant":
        return replace(receipt, merchant=text) if _same_splits(piece.text, text) else None
    if kind == "date":
        date = _dated(receipt.date, piece.field, text)
        is_fit = date is not None and date_split(date) is date_split(receipt.date)
        return replace(receipt, date=date) if date is not None and is_fit else None
    if kind == "total":
        total = _amount(text, piece.text)
        return None if total is None else replace(receipt, total=total)
    _, number, _ = piece.field.split(".")
    index = int(number)
    item = receipt.items[index]
    if kind == "name":
        if not _same_splits(piece.text, text):
            return None
        item = replace(item, name=text)
    else:
        price = _amount(text, piece.text)
        if price is None:
            return None
        item = replace(item, price=price)
    return replace(receipt, items=(*receipt.items[:index], item, *receipt.items[index + 1 :]))


def _same_splits(old: str, new: str) -> bool:
    return list(map(split_of, old.split())) == list(map(split_of, new.split()))


def _amount(new: str, old: str) -> Decimal | None:
    """Return the amount printed as `new`, unless it is of another split or starts with a zero."""
    after, before = (Decimal("".join(filter(str.isdigit, text))).scaleb(-2) for text in (new, old))
    has_idle_zero = new[0] == "0" and new[1].isdigit()
    return after if amount_split(after) is amount_split(before) and not has_idle_zero else None


def _dated(date: datetime.date, field: str, text: str) -> datetime.date | None:
    """Return the date with one part as in `text`; None for a month's name or no true date."""
    if not text.isdigit():
        return None
    part = field.removeprefix("date.")
    number = int(text) + (date.year // 100 * 100 if part == "year" and len(text) == 2 else 0)
    if part == "year" and number // 100 != date.year // 100:
        return None
    parts = {"year": date.year, "month": date.month, "day": date.day, part: number}
    try:
        return datetime.date(**parts)
    except ValueError:
        return None


def _with(layout: Layout, change: _Change) -> Layout:
    run = layout.runs[change.run]
    pieces = (*run.pieces[: change.piece], change.new, *run.pieces[change.piece + 1 :])
    runs = list(layout.runs)
    runs[change.run] = replace(run, pieces=pieces)
    return Layout(tuple(runs))
