import datetime
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from pipeline.schema.validate import Validator
from pipeline.synth.draw import draw_page
from pipeline.synth.layout import HEIGHT, WIDTH
from pipeline.synth.ticket import FARES, TicketPage, make_ticket
from pipeline.synth.values import amount_split, date_split
from pipeline.synth.words import Split, split_of

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "schemas" / "ticket.v1.json").read_text(encoding="utf-8")
)
SEEDS = range(120)


def stated(page: TicketPage) -> dict[str, str]:
    pieces = [piece for run in page.layout.runs for piece in run.pieces if piece.field]
    assert len({piece.field for piece in pieces}) == len(pieces), "a field is stated once"
    return {piece.field: piece.text for piece in pieces}


def test_records_are_valid_and_in_the_order_of_the_schema() -> None:
    validator = Validator(SCHEMA)
    for seed in SEEDS:
        text = make_ticket(f"{seed}", Split.TRAIN).ticket.to_json()
        record = json.loads(text, parse_float=Decimal)
        assert validator.violation(record) is None
        assert list(record) == list(SCHEMA["properties"])
    assert set(FARES) == set(SCHEMA["properties"]["fare"]["enum"])


def test_the_page_states_the_record() -> None:
    for seed in SEEDS:
        page = make_ticket(f"{seed}", Split.TRAIN)
        fields, ticket = stated(page), page.ticket
        record = json.loads(ticket.to_json())
        for name in ("origin", "destination", "departure", "seat"):
            assert fields[name] == record[name]
        assert fields["fare"].lower() == record["fare"]
        assert int(fields["date.day"]) == ticket.date.day
        assert re.sub(r"\D", "", fields["price"]).zfill(3) == f"{ticket.price * 100:03.0f}"


@pytest.mark.parametrize("split", list(Split))
def test_all_of_the_record_but_the_fare_is_of_the_split(split: Split) -> None:
    for seed in SEEDS:
        ticket = make_ticket(f"{seed}", split).ticket
        texts = (ticket.origin, ticket.destination, ticket.seat, f"{ticket.departure:%H:%M}")
        assert {split_of(text) for text in texts} == {split}
        assert (date_split(ticket.date), amount_split(ticket.price)) == (split, split)


def test_the_seed_alone_decides() -> None:
    assert make_ticket("x", Split.TEST) == make_ticket("x", Split.TEST)
    assert make_ticket("x", Split.TEST).ticket != make_ticket("y", Split.TEST).ticket


def test_all_print_is_on_the_page_and_drawn() -> None:
    for seed in SEEDS:
        page = make_ticket(f"{seed}", Split.TEST)
        assert all(0 < glyph.x < WIDTH and 0 < glyph.y < HEIGHT for glyph in page.layout.glyphs())
    darkest, lightest = draw_page(page.layout, page.look).getextrema()
    assert lightest - darkest > 100


def test_another_hour_and_the_fares_are_to_be_told_apart() -> None:
    pages = [make_ticket(f"{seed}", Split.TRAIN) for seed in SEEDS]
    hours = [re.findall(r"\b\d\d:\d\d\b", page.layout.text) for page in pages]
    assert 0.3 < sum(len(each) == 2 for each in hours) / len(pages) < 0.7
    assert {page.ticket.fare for page in pages} == set(FARES)
    assert all(isinstance(page.ticket.departure, datetime.time) for page in pages)
