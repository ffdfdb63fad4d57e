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


def test_rows_wait_until_a_quarter_of_the_slots_is_free() -> None:
    scheduler, asked = Scheduler(8), rows(10)
    scheduler.waiting.extend(asked)
    scheduler.joining()
    scheduler.leave(asked[:1])
    assert scheduler.joining() == []
    scheduler.leave(asked[1:2])
    assert scheduler.joining() == asked[8:]


def test_rows_sent_back_join_before_the_others_in_their_order() -> None:
    scheduler, asked = Scheduler(2), rows(4)
    scheduler.waiting.extend(asked)
    joined = scheduler.joining()
    scheduler.wait_again(joined)
    assert scheduler.running == []
    assert list(scheduler.waiting) == asked
    scheduler.shrink(1)
    assert scheduler.joining() == asked[:1]
