"""Made-up amounts and dates, divided among the splits as words are, by their canonical text."""

from __future__ import annotations

import datetime
import random
from decimal import Decimal

from pipeline.synth.words import Split, split_of

_EARLIEST = datetime.date(2015, 1, 1)
_DAYS = (datetime.date(2030, 1, 1) - _EARLIEST).days

_RANGES = ((50, 999), (1_000, 9_999), (10_000, 99_999), (100_000, 999_999))
"""Amounts in cents; small ones are the most common, each digit count now and then."""
_WEIGHTS = (0.30, 0.53, 0.14, 0.03)


def amount_split(amount: Decimal) -> Split:
    """Return the split that owns `amount`, by its text with two decimals."""
    return split_of(f"{amount:.2f}")


def date_split(date: datetime.date) -> Split:
    """Return the split that owns `date`, by its text as ISO 8601 has it."""
    return split_of(date.isoformat())


def made_up_amount(rng: random.Random, split: Split) -> Decimal:
    """Return an amount of `split`, from 0.50 to 9999.99."""
    lowest, highest = rng.choices(_RANGES, _WEIGHTS)[0]
    while True:
        cents = rng.randint(lowest, highest)
        if split_of(f"{cents // 100}.{cents % 100:02d}") is split:
            return Decimal(cents).scaleb(-2)


def made_up_date(rng: random.Random, split: Split) -> datetime.date:
    """Return a date of `split`, of the years 2015 to 2029."""
    while True:
        date = _EARLIEST + datetime.timedelta(rng.randrange(_DAYS))
        if date_split(date) is split:
            return date
