import random
from itertools import pairwise

import pytest

from pipeline.synth.document import make_document
from pipeline.synth.layout import FONT_SIZE, HEIGHT, WIDTH, lay_out
from pipeline.synth.receipt import CURRENCY_SIGNS, invent_receipt
from pipeline.synth.typeface import ADVANCE
from pipeline.synth.words import Split


def test_every_run_lies_on_the_page_and_none_overlap() -> None:
    for seed in range(300):
        (page,) = make_document(f"{seed}", Split.TRAIN).pages
        end: dict[float, float] = {}
        for run in page.layout.runs:
            assert run.x >= (end[run.top] + FONT_SIZE * ADVANCE if run.top in end else 2)
            end[run.top] = run.x + len(run.text) * FONT_SIZE * ADVANCE
            assert end[run.top] <= WIDTH
            assert 3 <= run.top <= HEIGHT - FONT_SIZE - 4
        tops = sorted(end)
        assert all(14 <= below - above <= 18 for above, below in pairwise(tops))


def test_pieces_state_the_record() -> None:
    for seed in range(100):
        document = make_document(f"{seed}", Split.TRAIN)
        receipt = document.receipt
        pieces = [piece for run in document.pages[0].layout.runs for piece in run.pieces]
        stated = {piece.field: piece.text for piece in pieces if piece.field}
        assert stated["merchant"] == receipt.merchant
        assert stated["total"] == f"{receipt.total:.2f}"
        assert stated["currency"] in (receipt.currency, CURRENCY_SIGNS[receipt.currency])
        assert stated["date.year"] == str(receipt.date.year)
        assert int(stated["date.day"]) == receipt.date.day
        for index, item in enumerate(receipt.items):
            assert stated[f"items.{index}.name"] == item.name
            assert stated[f"items.{index}.qty"] == str(item.qty)
            assert stated[f"items.{index}.price"] == f"{item.price:.2f}"


def test_too_many_items_are_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ValueError, match="do not fit"):
        lay_out(rng, invent_receipt(rng, Split.TRAIN, n_items=20), Split.TRAIN)


def test_pages_of_one_document_look_alike() -> None:
    first, second = make_document("pages", Split.TEST, n_pages=2).pages
    assert first.layout.typeface is second.layout.typeface
    assert first.layout.runs[0].pieces == second.layout.runs[0].pieces
    assert first.receipt.total == second.receipt.total
    assert first.receipt.items != second.receipt.items
