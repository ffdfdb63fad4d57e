import random
from datetime import date
from decimal import Decimal

import pytest

from pipeline.synth.values import amount_split, date_split, made_up_amount, made_up_date
from pipeline.synth.words import Split


@pytest.mark.parametrize(
    ("amount", "split"),
    [("1.08", Split.TRAIN), ("1.20", Split.VALIDATION), ("1.11", Split.TEST)],
)
def test_the_split_of_an_amount_follows_from_its_two_decimals(amount: str, split: Split) -> None:
    assert amount_split(Decimal(amount)) is split
    assert amount_split(Decimal(amount + "0")) is split


def test_splits_share_no_amount_and_no_date() -> None:
    amounts = {s: {made_up_amount(random.Random(i), s) for i in range(500)} for s in Split}
    dates = {s: {made_up_date(random.Random(i), s) for i in range(500)} for s in Split}
    for found in (amounts, dates):
        assert all(len(values) > 200 for values in found.values())
        assert len(set().union(*found.values())) == sum(map(len, found.values()))
    assert all(amount_split(amount) is split for split in Split for amount in amounts[split])
    assert all(date_split(day) is split for split in Split for day in dates[split])


def test_values_stay_in_range() -> None:
    rng = random.Random(0)
    amounts = [made_up_amount(rng, Split.TRAIN) for _ in range(2000)]
    assert Decimal("0.50") <= min(amounts) < 1
    assert 1000 < max(amounts) < 10000
    assert all(amount.as_tuple().exponent == -2 for amount in amounts)
    days = [made_up_date(rng, Split.TRAIN) for _ in range(2000)]
    assert date(2015, 1, 1) <= min(days)
    assert max(days) <= date(2029, 12, 31)
    assert {day.day for day in days} == set(range(1, 32))
