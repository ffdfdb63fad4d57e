"""Two looks: what is in doubt is asked again, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from pipeline.engine import second_look
from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.engine.second_look import Doubt
from pipeline.errors import ItemError
from pipeline.models.base import ModelInput, ModelOutput, Vocabulary
from pipeline.records import FinishReason, Image
from pipeline.tiles import LastTiles, tile_shapes

SURE, UNSURE = math.log(0.9), math.log(0.3)


class Reader:
    """A model whose answers are told beforehand, by how many tiles it is shown."""

    vocabulary = Vocabulary((b"a", b""), (1,), (1,))

    def __init__(self, answers: dict[int, ModelOutput | Exception]) -> None:
        self.answers = answers
        self.shown: list[int] = []

    def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        del max_new_tokens
        found = []
        for item in inputs:
            count = sum(len(page) for page in item.tiles)
            self.shown.append(count)
            answer = self.answers[count]
            if isinstance(answer, Exception):
                raise answer
            found.append(answer)
        return found


def output(
    text: str, logprob: float = SURE, reason: FinishReason = FinishReason.STOP
) -> ModelOutput:
    return ModelOutput(text, (0, 0), (SURE, logprob), reason, 7)


def tiles(pages: int = 1) -> list[list[Image]]:
    return [[np.full((4, 4, 1), i, np.uint8) for i in range(5)] for _ in range(pages)]


@pytest.fixture
def ask() -> Iterator[object]:
    engines = []

    def go(answers: dict[int, ModelOutput | Exception], pages: int = 1) -> tuple[object, Reader]:
        reader = Reader(answers)
        engine = Engine(reader, Limits(batch=1, linger_s=0))
        engines.append(engine)
        doubt = Doubt(lambda text: text != "wrong", 0.5)
        request = Request("?", tiles(pages), 10)
        return second_look.submit(engine, request, doubt).result(timeout=30), reader

    yield go
    for engine in engines:
        engine.close()


def test_a_sure_and_valid_answer_of_the_whole_page_is_kept(ask) -> None:
    found, reader = ask({1: output("right")})
    assert (found.text, found.looks, reader.shown) == ("right", 1, [1])


@pytest.mark.parametrize(
    "first",
    [output("right", UNSURE), output("wrong"), output("cut", reason=FinishReason.LENGTH)],
)
def test_an_answer_in_doubt_is_asked_again_with_all_tiles(ask, first) -> None:
    found, reader = ask({2: first, 10: output("better")}, pages=2)
    assert (found.text, found.looks, reader.shown) == ("better", 2, [2, 10])
    assert found.model_s > 0


def test_of_two_doubtful_answers_the_valid_one_counts(ask) -> None:
    found, _ = ask({1: output("right", UNSURE), 5: output("wrong")})
    assert (found.text, found.looks) == ("right", 2)
    found, _ = ask({1: output("wrong"), 5: output("cut", reason=FinishReason.LENGTH)})
    assert (found.text, found.looks) == ("cut", 2)


def test_a_second_look_that_fails_leaves_a_valid_first_answer(ask) -> None:
    found, _ = ask({1: output("right", UNSURE), 5: MemoryError("no room")})
    assert (found.text, found.looks) == ("right", 2)
    with pytest.raises(ItemError, match="no room"):
        ask({1: output("wrong"), 5: MemoryError("no room")})


def test_a_first_look_that_fails_fails_the_sample(ask) -> None:
    with pytest.raises(ItemError, match="no room"):
        ask({1: MemoryError("no room"), 5: output("right")})


def test_what_cannot_be_judged_is_not_valid_and_loses_nothing() -> None:
    def valid(text: str) -> bool:
        raise MemoryError(text)

    engine = Engine(Reader({1: output("a"), 5: output("b")}), Limits(batch=1, linger_s=0))
    with engine:
        future = second_look.submit(engine, Request("?", tiles(), 10), Doubt(valid, 0.5))
        assert future.result(timeout=30).text == "b"


@pytest.mark.parametrize("shown", [[], [[np.zeros((4, 4, 1), np.uint8)]]])
def test_where_there_is_no_more_to_show_there_is_no_second_look(shown) -> None:
    reader = Reader({len(shown): output("unsure", UNSURE)})
    with Engine(reader, Limits(batch=1, linger_s=0)) as engine:
        found = second_look.submit(engine, Request("?", shown, 10), Doubt(None, 0.5))
        assert found.result(timeout=30).looks == 1
    assert len(reader.shown) == 1


def test_an_engine_that_is_closed_between_two_looks_gives_the_first_if_it_is_valid() -> None:
    engine = Engine(Reader({1: output("right", UNSURE)}), Limits(batch=1, linger_s=0.5))
    future = second_look.submit(engine, Request("?", tiles(), 10), Doubt(None, 0.5))
    engine.close()
    assert future.result(timeout=30).text == "right"


def test_the_last_tiles_are_the_whole_pages() -> None:
    shown = LastTiles(tiles(3))
    assert [page[0][0, 0, 0] for page in shown] == [4, 4, 4]
    assert tile_shapes(shown) == [[(4, 4, 1)]] * 3
    assert len(shown) == 3


def test_the_last_tiles_let_go_of_the_others() -> None:
    buffer = np.zeros((5, 4, 4, 1), np.uint8)
    ((last,),) = LastTiles([list(buffer)])
    assert not np.shares_memory(last, buffer)
    alone = np.zeros((4, 4, 1), np.uint8)
    assert next(iter(LastTiles([[alone]])))[0] is alone
