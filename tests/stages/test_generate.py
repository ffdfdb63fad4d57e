from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.grammar import Grammar
from pipeline.lake.exact_json import loads
from pipeline.models.base import ModelInput, ModelOutput
from pipeline.models.fake import FakeModel
from pipeline.records import Answer, Failed, Failure, FailureKind, Sample, SampleId, StageName
from pipeline.schema import load_schema, relax
from pipeline.stages.generate import Ask, Grammars, generate

FAILURE = Failure(StageName.RASTERIZE, FailureKind.RENDER_TIMEOUT, "took 11 s", attempt=2)
BAD = 13


class FailsOnBad(FakeModel):
    """Fails every batch that holds a tile of the level `BAD`."""

    def generate(self, inputs: list[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        if any(item.tiles[0][0].flat[0] == BAD for item in inputs):
            raise RuntimeError("bad tile")
        return super().generate(inputs, max_new_tokens)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(FailsOnBad(), Limits(batch=4)) as engine:
        yield engine


def sample(number: int, level: int = 0, n_pages: int = 9) -> Sample:
    tile = np.full((4, 4, 1), level, np.uint8)
    identity = SampleId("d" * 64, "a.pdf", n_pages, (number,), {"batch": "7"})
    return Sample(identity, ((tile,),), ((),), rasterize_s=0.5, encode_s=0.25)


def test_answers_keep_the_samples_order_identity_and_costs(engine: Engine) -> None:
    samples = [sample(number, level=number + 20) for number in range(1, 10)]
    answers = generate(samples, engine, Ask(("Read.",), 20))
    assert [a.id for a in answers] == [s.id for s in samples]
    assert all(isinstance(a, Answer) for a in answers)
    assert {(a.rasterize_s, a.encode_s) for a in answers} == {(0.5, 0.25)}
    assert {a.id.source["batch"] for a in answers} == {"7"}
    assert len({a.generation.text for a in answers}) == 9
    assert answers == [
        replace(b, generation=a.generation)
        for a, b in zip(answers, generate(samples, engine, Ask(("Read.",), 20)), strict=True)
    ]


def test_what_failed_before_passes_through_in_its_place(engine: Engine) -> None:
    failed = Failed(sample(2).id, FAILURE)
    answers = generate([sample(1, 1), failed, sample(3, 3)], engine, Ask(("Read.",), 20))
    assert answers[1] is failed
    assert [a.id.page_numbers for a in answers] == [(1,), (2,), (3,)]
    assert generate([failed], engine, Ask(("Read.",), 20)) == [failed]
    assert generate([], engine, Ask(("Read.",), 20)) == []


def test_a_sample_that_the_model_fails_on_costs_itself_only(engine: Engine) -> None:
    answers = generate([sample(1, 1), sample(2, BAD), sample(3, 3)], engine, Ask(("Read.",), 20))
    assert answers[1] == Failed(
        sample(2).id,
        Failure(StageName.GENERATE, FailureKind.MODEL_ERROR, "RuntimeError: bad tile"),
    )
    assert isinstance(answers[0], Answer)
    assert isinstance(answers[2], Answer)


def test_a_page_that_is_not_its_whole_document_may_leave_values_out(engine: Engine) -> None:
    """The relaxed grammar lets a list of no items and nulls through; the true one does not."""
    schema, vocabulary = load_schema("receipt.v1"), FakeModel().vocabulary
    grammars = Grammars(Grammar(schema.document, vocabulary), Grammar(relax(schema), vocabulary))
    ask = Ask(("Read.",), 3000, grammars)
    whole = [sample(1, level, n_pages=1) for level in range(20, 28)]
    part = [sample(1, level, n_pages=2) for level in range(20, 28)]
    whole_records = [loads(a.generation.text) for a in generate(whole, engine, ask)]
    part_records = [loads(a.generation.text) for a in generate(part, engine, ask)]
    assert all(value is not None for record in whole_records for value in record.values())
    assert all(record["items"] for record in whole_records)
    assert any(value is None for record in part_records for value in record.values())
