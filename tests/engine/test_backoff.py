from __future__ import annotations

import pytest

from pipeline.engine.backoff import Backoff


def work(backoff: Backoff, amount: int, room: int) -> bool:
    try:
        with backoff.trying(amount):
            if amount > room:
                raise MemoryError
    except MemoryError:
        return False
    return True


def test_memory_that_runs_out_halves_the_work_and_in_time_it_grows_again() -> None:
    backoff = Backoff(64, steps=16)
    assert not work(backoff, 64, room=20)
    assert not work(backoff, backoff.now, room=20)
    assert backoff.now == 16
    grown = []
    while work(backoff, backoff.now, room=64) and backoff.now < 64:
        grown.append(backoff.now)
    assert grown == sorted(grown)
    assert backoff.now == 64


def test_other_errors_and_a_piece_that_fails_alone_teach_nothing() -> None:
    backoff = Backoff(8, steps=4)
    assert not work(backoff, 1, room=0)
    with pytest.raises(ValueError, match="bad"), backoff.trying(8):
        raise ValueError("bad")
    assert backoff.now == 8


def test_parts_follow_what_is_learned_meanwhile() -> None:
    backoff = Backoff(4, steps=1000)
    sizes = []
    for part in backoff.parts(range(12)):
        sizes.append(len(part))
        work(backoff, len(part), room=3)
    assert sizes == [4, 2, 2, 2, 2]
