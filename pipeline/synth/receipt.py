"""Receipts and invoices: what a document says, before anything decides how it looks."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from pipeline.synth.values import amount_split, made_up_amount, made_up_date
from pipeline.synth.words import Split, made_up_word

CURRENCY_SIGNS = {"EUR": "€", "USD": "$", "GBP": "£", "CHF": "CHF"}

MERCHANT_LONGEST = 20
ITEM_NAME_LONGEST = 12
_SUFFIXES = (
    *("Ltd", "GmbH", "Cafe", "Market", "& Co", "Store", "Shop", "Inc", "SARL", "Bakery"),
    *("Foods", "Deli"),
)
_ITEM_COUNTS = (1, 2, 2, 3, 3, 3, 4, 4, 5, 6)
_TAX_PERCENTS = (5, 7, 8, 10, 19, 20, 21, 25)
_CENT = Decimal("0.01")

Case = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a receipt; `price` is the amount of the line, whatever the quantity."""

    name: str
    qty: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Receipt:
    """The truth of one document, or of one of its pages. Amounts have two decimals.

    `total` is what all items cost, less `discount`, with `added_tax`; `tax_percent` is the rate
    of that tax, or of the tax within the total if none is added.
    """

    merchant: str
    date: datetime.date
    items: tuple[Item, ...]
    total: Decimal
    currency: str
    discount: Decimal = Decimal("0.00")
    added_tax: Decimal = Decimal("0.00")
    tax_percent: int = 20

    @property
    def subtotal(self) -> Decimal:
        """What all items cost."""
        return self.total - self.added_tax + self.discount

    @property
    def included_tax(self) -> Decimal:
        """The part of the total that is tax, at `tax_percent`."""
        rate = self.tax_percent
        return (self.total * rate / (100 + rate)).quantize(_CENT)

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
    """Make up a receipt of words, amounts and a date of `split` only.

    It has one to six items unless told how many.
    """
    merchant = _merchant(rng, split)
    date = made_up_date(rng, split)
    case = rng.choice((str.upper, str.capitalize, str.capitalize, str.capitalize, str.lower))
    count = rng.choice(_ITEM_COUNTS) if n_items is None else n_items
    items = tuple(
        Item(
            name=_item_name(rng, split, case),
            qty=1 if rng.random() < 0.4 else rng.choice((rng.randint(1, 9), rng.randint(1, 24))),
            price=made_up_amount(rng, split),
        )
        for _ in range(count)
    )
    currency = rng.choice(tuple(CURRENCY_SIGNS))
    draft = Receipt(merchant, date, items, Decimal(0), currency)
    return _summed(rng, split, draft, rng.random() < 0.15, rng.random() < 0.15)


def _summed(
    rng: random.Random, split: Split, draft: Receipt, has_discount: bool, adds_tax: bool
) -> Receipt:
    """Return the draft with sums; its last price is drawn again until the total is of `split`."""
    percent = rng.choice(_TAX_PERCENTS)
    *others, last = draft.items
    before = sum((item.price for item in others), Decimal(0))
    while True:
        subtotal = before + last.price
        cut = Decimal(rng.choice((5, 10, 15, 20, 25))) / 100 if has_discount else Decimal(0)
        discount = (subtotal * cut).quantize(_CENT)
        tax = (subtotal - discount) * percent / 100 if adds_tax else Decimal(0)
        tax = tax.quantize(_CENT)
        total = subtotal - discount + tax
        if amount_split(total) is split:
            return replace(
                draft,
                items=(*others, last),
                total=total,
                discount=discount,
                added_tax=tax,
                tax_percent=percent,
            )
        last = replace(last, price=made_up_amount(rng, split))


def _merchant(rng: random.Random, split: Split) -> str:
    case: Case = rng.choice((str.upper, str.upper, str.capitalize, str.capitalize, str.capitalize))
    words = [case(made_up_word(rng, split, 3, 9)) for _ in range(rng.choice((1, 1, 2)))]
    if rng.random() < 0.6:
        suffix = rng.choice(_SUFFIXES)
        words.append(suffix.upper() if case is str.upper else suffix)
    name = " ".join(words)
    return name if len(name) <= MERCHANT_LONGEST else words[0]


def _item_name(rng: random.Random, split: Split, case: Case) -> str:
    first = made_up_word(rng, split, 3, 8)
    if rng.random() >= 0.3:
        return case(first)
    room = ITEM_NAME_LONGEST - len(first) - 1
    return f"{case(first)} {case(made_up_word(rng, split, 3, min(5, room)))}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
