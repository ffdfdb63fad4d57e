import random
import re
from datetime import date
from decimal import Decimal

import pytest

from pipeline.synth.document import SynthPage, make_document
from pipeline.synth.notation import choose_date_style, date_pieces, date_text
from pipeline.synth.receipt import CURRENCY_SIGNS
from pipeline.synth.values import amount_split, date_split
from pipeline.synth.words import Split, split_of

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def stated(page: SynthPage) -> dict[str, str]:
    pieces = [piece for run in page.layout.runs for piece in run.pieces if piece.field]
    assert len({piece.field for piece in pieces}) == len(pieces), "a field is stated once"
    return {piece.field: piece.text for piece in pieces}


def amount(text: str) -> Decimal:
    """Read an amount of either notation: its last two digits are cents."""
    assert re.fullmatch(r"\d{1,3}([,.]?\d{3})?[,.]\d\d", text)
    return Decimal(re.sub(r"\D", "", text)).scaleb(-2)


def test_pieces_state_the_record() -> None:
    for seed in range(300):
        (page,) = make_document(f"{seed}", Split.TRAIN).pages
        receipt, fields = page.receipt, stated(page)
        assert fields["merchant"] == receipt.merchant
        assert amount(fields["total"]) == receipt.total
        assert fields["currency"] in (receipt.currency, CURRENCY_SIGNS[receipt.currency])
        month = fields["date.month"]
        number = int(month) if month.isdigit() else 1 + MONTHS.index(month[:3].lower())
        year = int(fields["date.year"])
        assert receipt.date == date(
            year if year > 99 else 2000 + year, number, int(fields["date.day"])
        )
        for index, item in enumerate(receipt.items):
            assert fields[f"items.{index}.name"] == item.name
            assert fields[f"items.{index}.qty"] == str(item.qty)
            assert amount(fields[f"items.{index}.price"]) == item.price
        assert f"items.{len(receipt.items)}.name" not in fields


def test_one_notation_of_amounts_a_page() -> None:
    for seed in range(200):
        (page,) = make_document(f"{seed}", Split.TRAIN).pages
        amounts = [text for field, text in stated(page).items() if re.search("price|total", field)]
        assert len({text[-3] for text in amounts}) == 1


@pytest.mark.parametrize("split", list(Split))
def test_all_of_the_record_is_of_the_split(split: Split) -> None:
    for seed in range(60):
        receipt = make_document(f"{seed}", split).receipt
        assert date_split(receipt.date) is split
        amounts = [receipt.total, *(item.price for item in receipt.items)]
        assert {amount_split(each) for each in amounts} == {split}
        words = [word for item in receipt.items for word in item.name.split()]
        assert {split_of(word) for word in (receipt.merchant.split()[0], *words)} == {split}


def test_a_quarter_are_invoices_and_say_so() -> None:
    texts = [make_document(f"{seed}", Split.TRAIN).pages[0].layout.text for seed in range(400)]
    invoices = [text for text in texts if "INVOICE" in text.upper()]
    assert 0.18 < len(invoices) / len(texts) < 0.33
    assert sum("\nDue" in text or "\nPay by" in text for text in invoices) > len(invoices) / 4
    assert all(re.search("Date|Issued|date", text) for text in invoices)


def test_one_to_six_items() -> None:
    counts = {len(make_document(f"{seed}", Split.TRAIN).receipt.items) for seed in range(100)}
    assert counts == {1, 2, 3, 4, 5, 6}


def test_pages_of_one_document_look_alike() -> None:
    first, second = make_document("pages", Split.TEST, n_pages=2).pages
    assert first.layout.runs[0].typeface is second.layout.runs[0].typeface
    assert first.layout.runs[0].pieces == second.layout.runs[0].pieces
    assert first.receipt.total == second.receipt.total
    assert first.receipt.items != second.receipt.items


def test_the_seed_alone_decides() -> None:
    assert make_document("x", Split.TRAIN) == make_document("x", Split.TRAIN)
    assert make_document("x", Split.TRAIN) != make_document("y", Split.TRAIN)


def test_dates_in_digits_put_the_day_first_unless_the_year_is() -> None:
    day, styles = date(2024, 3, 5), {choose_date_style(random.Random(seed)) for seed in range(500)}
    texts = {date_text(style, day) for style in styles}
    in_digits = {text for text in texts if not re.search("[A-Za-z]", text)}
    assert in_digits == {
        *("2024-03-05", "2024/03/05", "05/03/2024", "05.03.2024", "05-03-2024", "05.03.24"),
    }
    assert {"05 Mar 2024", "MAR 05, 2024", "March 05, 2024"} <= texts - in_digits
    for style in styles:
        parts = [piece.field for piece in date_pieces(style, day) if piece.field]
        assert sorted(parts) == ["date.day", "date.month", "date.year"]
