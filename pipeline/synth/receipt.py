"""Receipts: what a document says, before anything decides how it looks."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from pipeline.synth.words import Split, made_up_word

CURRENCY_SIGNS = {"EUR": "€", "USD": "$", "GBP": "£", "CHF": "CHF"}

MERCHANT_LONGEST = 20
ITEM_NAME_LONGEST = 12
_SUFFIXES = (
    *("Ltd", "GmbH", "Cafe", "Market", "& Co", "Store", "Shop", "Inc", "SARL", "Bakery"),
    *("Foods", "Deli"),
)
_ITEM_COUNTS = (1, 2, 2, 3, 3, 4)

Case = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a receipt; `price` is the amount of the line, whatever the quantity."""

    name: str
    qty: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Receipt:
    """The truth of one document, or of one of its pages. Amounts have two decimals."""

    merchant: str
    date: datetime.date
    items: tuple[Item, ...]
    total: Decimal
    currency: str

    def to_json(self) -> str:
        """Return the record of schema `receipt.v1`: compact JSON, amounts with two decimals."""
        items = ",".join(
            f'{{"name":{_quoted(item.name)},"qty":{item.qty},"price":{item.price:.2f}}}'
            for item in self.items
        )
        return (
            f'{{"merchant":{_quoted(self.merchant)},"date":"{self.date.isoformat()}",'
            f'"items":[{items}],"total":{self.total:.2f},"currency":"{self.currency}"}}'
        )

    def pages(self, items_per_page: int) -> tuple[Receipt, ...]:
        """Divide the items among pages; each page repeats the rest, the whole total included."""
        starts = range(0, len(self.items), items_per_page)
        return tuple(replace(self, items=self.items[i : i + items_per_page]) for i in starts)


def invent_receipt(rng: random.Random, split: Split, n_items: int | None = None) -> Receipt:
    """Make up a receipt with words of `split` only; one to four items unless told how many."""
    merchant = _merchant(rng, split)
    date = _date(rng)
    case = rng.choice((str.upper, str.capitalize, str.capitalize, str.capitalize, str.lower))
    count = rng.choice(_ITEM_COUNTS) if n_items is None else n_items
    items = tuple(
        Item(
            name=_item_name(rng, split, case),
            qty=1 if rng.random() < 0.4 else rng.randint(1, 9),
            price=_amount(rng),
        )
        for _ in range(count)
    )
    total = sum((item.price for item in items), Decimal("0.00"))
    return Receipt(merchant, date, items, total, rng.choice(tuple(CURRENCY_SIGNS)))


def _merchant(rng: random.Random, split: Split) -> str:
    case: Case = rng.choice((str.upper, str.upper, str.capitalize, str.capitalize, str.capitalize))
    words = [case(made_up_word(rng, split, 3, 9)) for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.6:
        suffix = rng.choice(_SUFFIXES)
        words.append(suffix.upper() if case is str.upper else suffix)
    name = " ".join(words)
    return name if len(name) <= MERCHANT_LONGEST else words[0]


def _date(rng: random.Random) -> datetime.date:
    """Return a date of 2015 to 2029; days after the 28th are rarer."""
    while True:
        year, month = rng.randint(2015, 2029), rng.randint(1, 12)
        day = rng.randint(1, 28 if rng.random() < 0.8 else 31)
        try:
            return datetime.date(year, month, day)
        except ValueError:
            continue


def _item_name(rng: random.Random, split: Split, case: Case) -> str:
    first = made_up_word(rng, split, 3, 8)
    if rng.random() >= 0.3:
        return case(first)
    room = ITEM_NAME_LONGEST - len(first) - 1
    return f"{case(first)} {case(made_up_word(rng, split, 3, min(5, room)))}"


def _amount(rng: random.Random) -> Decimal:
    """Return 0.50 to 199.99; small amounts are the most common."""
    lowest, highest = rng.choices(
        ((50, 999), (1000, 9999), (10000, 19999)), weights=(0.55, 0.40, 0.05)
    )[0]
    return Decimal(rng.randint(lowest, highest)).scaleb(-2)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
