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


def test_rows_join_in_order_and_take_the_lowest_slots() -> None:
    scheduler, asked = Scheduler(4), rows(6)
    scheduler.waiting.extend(asked)
    assert scheduler.joining() == asked[:4]
    assert [row.slot for row in asked[:4]] == [0, 1, 2, 3]
    assert scheduler.joining() == []
    scheduler.leave([asked[2], asked[0]])
    assert scheduler.running == [asked[1], asked[3]]
    assert scheduler.joining() == asked[4:]
    assert [row.slot for row in asked[4:]] == [0, 2]


def test_rows_wait_until_an_eighth_of_the_slots_is_free() -> None:
    scheduler, asked = Scheduler(16), rows(20)
    scheduler.waiting.extend(asked)
    scheduler.joining()
    scheduler.leave(asked[:1])
    assert scheduler.joining() == []
    scheduler.leave(asked[1:2])
    assert scheduler.joining() == asked[16:18]


def test_the_last_rows_move_down_into_gaps_once_nobody_waits() -> None:
    scheduler, asked = Scheduler(6), rows(7)
    scheduler.waiting.extend(asked)
    scheduler.joining()
    scheduler.leave([asked[1], asked[2]])
    assert scheduler.moves() == []
    assert scheduler.joining() == asked[6:]
    scheduler.leave([asked[3], asked[0]])
    moves = scheduler.moves()
    assert moves == [(asked[4], 0), (asked[5], 2)]
    for row, slot in moves:
        scheduler.moved(row, slot)
    assert [row.slot for row in scheduler.running] == [0, 1, 2]
    assert scheduler.moves() == []
    more = rows(3)
    scheduler.waiting.extend(more)
    assert scheduler.joining() == more
    assert [row.slot for row in more] == [3, 4, 5]


def test_fewer_slots_hold_fewer_rows() -> None:
    scheduler, asked = Scheduler(2), rows(4)
    scheduler.waiting.extend(asked)
    scheduler.shrink(1)
    assert scheduler.joining() == asked[:1]
