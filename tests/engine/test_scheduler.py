from __future__ import annotations

from concurrent.futures import Future

import numpy as np

from pipeline.engine.request import Request
from pipeline.engine.row import Row
from pipeline.engine.scheduler import Scheduler
from pipeline.models.stepping import PromptTokens

TILES = ((np.zeros((2, 3, 1), np.uint8),),)


def rows(count: int) -> list[Row]:
    return [
        Row(
            request=Request(f"{number}", TILES, 8),
            future=Future(),
            prompt=PromptTokens((1, 2), (False, False)),
            grammar=None,
            drafter=None,
            stop_ids=frozenset({0}),
            submitted=0.0,
        )
        for number in range(count)
    ]


def joined(scheduler: Scheduler) -> list[Row]:
    found = scheduler.next(scheduler.free)
    scheduler.join(found)
    return found


def test_rows_join_in_order_and_take_the_lowest_slots() -> None:
    scheduler, asked = Scheduler(4), rows(6)
    scheduler.waiting.extend(asked)
    assert joined(scheduler) == asked[:4]
    assert [row.slot for row in asked[:4]] == [0, 1, 2, 3]
    assert scheduler.free == 0
    scheduler.leave([asked[2], asked[0]])
    assert scheduler.running == [asked[1], asked[3]]
    assert joined(scheduler) == asked[4:]
    assert [row.slot for row in scheduler.running] == [0, 1, 2, 3]


def test_an_eighth_of_the_slots_makes_a_group() -> None:
    assert [Scheduler(slots).group for slots in (1, 4, 16, 64)] == [1, 1, 2, 8]


def test_the_last_rows_move_down_into_gaps() -> None:
    scheduler, asked = Scheduler(6), rows(6)
    scheduler.waiting.extend(asked)
    joined(scheduler)
    scheduler.leave([asked[0], asked[2], asked[3]])
    moves = scheduler.moves()
    assert moves == [(asked[4], 0), (asked[5], 2)]
    for row, slot in moves:
        scheduler.moved(row, slot)
    assert [row.slot for row in scheduler.running] == [0, 1, 2]
    assert scheduler.moves() == []
    more = rows(3)
    scheduler.join(more)
    assert [row.slot for row in more] == [3, 4, 5]


def test_fewer_slots_hold_fewer_rows() -> None:
    scheduler, asked = Scheduler(2), rows(4)
    scheduler.waiting.extend(asked)
    scheduler.resize(1)
    assert joined(scheduler) == asked[:1]
