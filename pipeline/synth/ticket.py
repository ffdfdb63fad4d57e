"""Travel tickets: a kind of document that the bundled reader was never shown."""

from __future__ import annotations

import datetime
import json
import random
from dataclasses import dataclass, replace
from decimal import Decimal

from pipeline.synth.draw import Look, choose_look
from pipeline.synth.layout import Layout, Piece
from pipeline.synth.lines import Align, Cell, Line, Role, aligned, plain, right, rule
from pipeline.synth.notation import (
    CurrencyPlace,
    choose_date_style,
    choose_money,
    date_pieces,
)
from pipeline.synth.place import DoesNotFitError, choose_setting, place
from pipeline.synth.receipt import CURRENCY_SIGNS
from pipeline.synth.values import made_up_amount, made_up_date
from pipeline.synth.words import Split, made_up_word, split_of

FARES = ("adult", "child", "student", "senior")

_ATTEMPTS = 200
_TITLES = ("TRAIN TICKET", "Train ticket", "BUS TICKET", "TICKET", "Ferry ticket", "Single ticket")
_ENDS = (("From", "To"), ("FROM", "TO"), ("From:", "To:"), ("Start", "End"), ("Origin", "Dest."))
_DATE_LABELS = ("Date", "DATE", "Date:", "Day", "Travel date")
_TIME_LABELS = (
    *(("Departs", "Arrives"), ("Dep.", "Arr."), ("DEP", "ARR")),
    *(("Departure:", "Arrival:"), ("Leaves", "Arrives")),
)
_SEAT_LABELS = ("Seat", "SEAT", "Seat:", "Seat no.")
_FARE_LABELS = ("Fare", "Fare:", "Type", "Passenger", "Tariff")
_PRICE_LABELS = ("Price", "PRICE", "Paid", "Price:", "TOTAL", "Amount")
_NOTES = ("Not transferable", "Have a good trip", "No refunds", "Keep this ticket", "Valid one way")


@dataclass(frozen=True, slots=True)
class Ticket:
    """The truth of one document; `price` has two decimals, `fare` is one of `FARES`."""

    origin: str
    destination: str
    date: datetime.date
    departure: datetime.time
    seat: str
    fare: str
    price: Decimal

    def to_json(self) -> str:
        """Return the record of schema `ticket.v1`: compact JSON, the price with two decimals."""
        texts = {
            "origin": self.origin,
            "destination": self.destination,
            "date": self.date.isoformat(),
            "departure": f"{self.departure:%H:%M}",
            "seat": self.seat,
            "fare": self.fare,
        }
        written = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
        return f'{written[:-1]},"price":{self.price:.2f}}}'


@dataclass(frozen=True, slots=True)
class TicketPage:
    """A ticket on its page, laid out and with its look."""

    ticket: Ticket
    layout: Layout
    look: Look


def make_ticket(seed: str, split: Split) -> TicketPage:
    """Return the ticket of `seed`: the same on every machine, words and values of `split` only."""
    ticket = invent_ticket(random.Random(f"ticket {seed}"), split)
    look = choose_look(random.Random(f"look of ticket {seed}"))
    for attempt in range(_ATTEMPTS):
        rng = random.Random(f"layout of ticket {seed} {attempt}")
        try:
            layout = place(rng, choose_setting(rng), _lines(rng, ticket, split))
        except DoesNotFitError:
            continue
        return TicketPage(ticket, layout, look)
    raise DoesNotFitError(f"no style in {_ATTEMPTS} suits the ticket of seed {seed!r}")


def invent_ticket(rng: random.Random, split: Split) -> Ticket:
    """Make up a ticket; everything but the fare is of `split` only."""
    case = rng.choice((str.upper, str.capitalize, str.capitalize))
    return Ticket(
        origin=case(made_up_word(rng, split, 3, 9)),
        destination=case(made_up_word(rng, split, 3, 9)),
        date=made_up_date(rng, split),
        departure=_time(rng, split),
        seat=_seat(rng, split),
        fare=rng.choice(FARES),
        price=made_up_amount(rng, split),
    )


def _time(rng: random.Random, split: Split) -> datetime.time:
    while True:
        time = datetime.time(rng.randrange(24), rng.randrange(60))
        if split_of(f"{time:%H:%M}") is split:
            return time


def _seat(rng: random.Random, split: Split) -> str:
    while True:
        seat = f"{rng.randint(1, 99)}{rng.choice('ABCDEF')}"
        if split_of(seat) is split:
            return seat


def _lines(rng: random.Random, ticket: Ticket, split: Split) -> list[Line]:
    """Compose a ticket, with the hour of arrival, to be told from that of departure."""
    spread = rng.random() < 0.5

    def stated(label: str, *pieces: Piece, role: Role = Role.BODY) -> Line:
        """Return a label and a value, beside it or, if `spread`, at the right margin."""
        if spread:
            return Line((Cell((Piece(label),)), right(pieces)), role=role)
        return Line((Cell((Piece(f"{label} "), *pieces)),), role=role)

    first, last = rng.choice(_ENDS)
    route = [
        stated(first, Piece(ticket.origin, "origin")),
        stated(last, Piece(ticket.destination, "destination")),
    ]
    leaves, arrives = rng.choice(_TIME_LABELS)
    hours = [stated(leaves, Piece(f"{ticket.departure:%H:%M}", "departure"))]
    if rng.random() < 0.5:
        hours.append(stated(arrives, Piece(f"{_time(rng, split):%H:%M}")))
    day = stated(rng.choice(_DATE_LABELS), *date_pieces(choose_date_style(rng), ticket.date))
    fare = rng.choice((str.upper, str.capitalize, str.lower))(ticket.fare)
    seating = [
        stated(rng.choice(_SEAT_LABELS), Piece(ticket.seat, "seat")),
        stated(rng.choice(_FARE_LABELS), Piece(fare, "fare")),
    ]
    if rng.random() < 0.3:
        seating.reverse()
    money = replace(choose_money(rng, rng.choice(tuple(CURRENCY_SIGNS))), place=CurrencyPlace.LINES)
    price = money.line_amount(ticket.price, "price")
    price_line = stated(rng.choice(_PRICE_LABELS), *price, role=Role.TOTAL)
    when = [day, *hours]
    body = [*when, *route] if rng.random() < 0.2 else [*route, *when]
    return [*_heading(rng, split), *body, *seating, price_line, *_closing(rng)]


def _heading(rng: random.Random, split: Split) -> list[Line]:
    align = rng.choice((Align.LEFT, Align.CENTRE))
    title = (Piece(rng.choice(_TITLES)),)
    lines = [Line((aligned(title, align),), role=Role.HEADING, optional=True)]
    if rng.random() < 0.4:
        carrier = made_up_word(rng, split, 3, 8).capitalize()
        lines.append(plain(f"{carrier} {rng.choice(('Rail', 'Lines', 'Bus', 'Travel'))}", align))
    if rng.random() < 0.4:
        lines.append(plain(f"No. {rng.randint(10_000, 999_999)}", align))
    if rng.random() < 0.4:
        lines.append(rule(rng.choice("-="), 1.0))
    return lines


def _closing(rng: random.Random) -> list[Line]:
    return [plain(rng.choice(_NOTES), Align.CENTRE)] if rng.random() < 0.4 else []
