from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline.engine.grammar import Grammar
from pipeline.errors import CheckpointError
from pipeline.lake.exact_json import loads
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, ModelOutput, Placement
from pipeline.models.fake import FakeFamily, FakeModel
from pipeline.models.families import resolve
from pipeline.records import FinishReason
from pipeline.schema import Validator, load_schema


def settings(name: str) -> ModelSettings:
    return ModelSettings(name=name, family="fake")


def model_input(level: int, grammar: Grammar | None = None) -> ModelInput:
    tile = np.full((6, 4, 1), level, np.uint8)
    return ModelInput("Read.", ((tile,),), grammar.start() if grammar else None)


def answers(inputs: list[ModelInput], limit: int = 4000) -> list[ModelOutput]:
    return FakeModel().generate(inputs, limit)


def test_the_same_page_always_gets_the_same_answer_and_another_page_another() -> None:
    one, other, again = answers([model_input(1), model_input(2), model_input(1)])
    assert one == again
    assert one.text != other.text
    assert one.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("schema_id", ["receipt.v1", "text.v1"])
def test_answers_under_a_grammar_are_valid(schema_id: str) -> None:
    document = load_schema(schema_id).document
    grammar = Grammar(document, FakeModel().vocabulary)
    found = answers([model_input(level, grammar) for level in range(20)])
    assert {answer.finish_reason for answer in found} == {FinishReason.STOP}
    validator = Validator(document)
    assert [validator.violation(loads(answer.text)) for answer in found] == [None] * 20


def test_an_answer_is_cut_at_the_limit() -> None:
    grammar = Grammar(load_schema("receipt.v1").document, FakeModel().vocabulary)
    (answer,) = answers([model_input(1, grammar)], limit=7)
    assert answer.finish_reason is FinishReason.LENGTH
    assert len(answer.token_ids) == len(answer.logprobs) == 7


def test_settings_ride_on_the_name() -> None:
    family, asked = FakeFamily(), settings("fake?seconds=0.02&edge=224")
    checkpoint = resolve(asked)
    assert family.encoder(checkpoint, asked).longest_edge == 224
    model = family.load(checkpoint, asked, Placement())
    started = time.perf_counter()
    model.generate([model_input(1)] * 3, 8)
    assert time.perf_counter() - started >= 0.06


def test_a_setting_that_is_no_number_is_refused() -> None:
    asked = settings("fake?edge=wide")
    with pytest.raises(CheckpointError, match="edge must be a number, not 'wide'"):
        FakeFamily().encoder(resolve(asked), asked)


def test_pages_of_a_colour_do_the_harm_that_the_name_says() -> None:
    checkpoint = resolve(settings("fake?fails_on=070707&runs_out_on=080808"))
    model = FakeFamily().load(checkpoint, settings("fake"), Placement("cpu"))
    assert model.generate([model_input(6)], 10)
    with pytest.raises(ValueError, match="meant to fail"):
        model.generate([model_input(6), model_input(7)], 10)
    with pytest.raises(MemoryError):
        model.generate([model_input(8)], 10)
