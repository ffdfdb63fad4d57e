import json
import random
from decimal import Decimal

import numpy as np
import pytest

from pipeline.synth.altered import altered
from pipeline.synth.document import make_document
from pipeline.synth.draw import Look, draw_page
from pipeline.synth.values import amount_split, date_split
from pipeline.synth.words import Split

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_printed_character_changes_and_the_truth_with_it(seed: int) -> None:
    before = make_document(f"{seed}", Split.TEST)
    after, field = altered(before, random.Random(seed))
    old, new = (document.pages[0].layout.glyphs() for document in (before, after))
    ((was, now),) = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert was._replace(char=now.char) == now
    assert (was.field, was.char.isdigit()) == (field, now.char.isdigit())
    assert after.receipt == after.pages[0].receipt
    assert after.pages[0].look == before.pages[0].look

    truths = [json.loads(each.receipt.to_json(), parse_float=Decimal) for each in (before, after)]
    name, *_ = field.split(".")
    assert [key for key in truths[0] if truths[0][key] != truths[1][key]] == [name]
    pieces = [piece for run in after.pages[0].layout.runs for piece in run.pieces]
    (piece,) = [piece for piece in pieces if piece.field == field]
    if name in ("merchant", "total"):
        stated = str(truths[1][name])
        assert piece.text == stated or only_digits(piece.text) == only_digits(stated)


def only_digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


def test_new_values_are_of_the_same_split() -> None:
    for seed in SEEDS:
        receipt = altered(make_document(f"{seed}", Split.TEST), random.Random(seed))[0].receipt
        assert date_split(receipt.date) is Split.TEST
        amounts = (receipt.total, *(item.price for item in receipt.items))
        assert {amount_split(amount) for amount in amounts} == {Split.TEST}


def test_every_kind_of_value_is_changed() -> None:
    fields = {
        altered(make_document(f"{seed}", Split.TEST), random.Random(seed))[1] for seed in SEEDS
    }
    kinds = {"".join(c for c in field if not c.isdigit()) for field in fields}
    assert {"merchant", "total", "items..name", "items..price", "date.year"} <= kinds


def test_nothing_else_on_the_page_moves() -> None:
    before = make_document("still", Split.TEST)
    after, _ = altered(before, random.Random(1))
    images = [draw_page(each.pages[0].layout, Look()) for each in (before, after)]
    old, new = (np.asarray(image, dtype=int) for image in images)
    rows, columns = np.nonzero(old != new)
    assert 0 < np.ptp(rows) < 16
    assert np.ptp(columns) < 16


def test_a_document_of_several_pages_is_refused() -> None:
    with pytest.raises(ValueError, match="of one page is altered, not of 2"):
        altered(make_document("two", Split.TEST, n_pages=2), random.Random(0))
