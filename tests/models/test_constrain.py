"""Answers under a grammar, by random weights and by the bundled model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.engine.grammar import Grammar
from pipeline.lake.exact_json import loads
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, Placement
from pipeline.models.constrain import ConstrainedLogits
from pipeline.models.families import family_of, resolve
from pipeline.models.idefics2.model import Idefics2Model
from pipeline.prompting import conversation, parsed
from pipeline.records import Answer, FailureKind, FinishReason, Generation, SampleId, State
from pipeline.schema import Validator, load_schema, make_schema, relax
from pipeline.stages.parse import parse_json

SHORT = {
    "type": "object",
    "required": ["name", "count", "kind", "sure"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "count": {"type": ["integer", "null"], "minimum": 0, "maximum": 99},
        "kind": {"enum": ["EUR", "USD"]},
        "sure": {"type": "boolean"},
    },
}


@cache
def load(name: str) -> Idefics2Model:
    settings = ModelSettings(name=name)
    checkpoint = resolve(settings)
    model = Idefics2Model(checkpoint, settings, Placement())
    assert isinstance(model, Idefics2Model)
    return model


def model_inputs(name: str, grammars: list[Grammar | None]) -> list[ModelInput]:
    settings = ModelSettings(name=name)
    checkpoint = resolve(settings)
    family = family_of(checkpoint)
    encoder, prompt = (
        family.encoder(checkpoint, settings),
        family.prompt(checkpoint, settings, conversation(parsed("Read."), 1), ""),
    )
    rng = np.random.default_rng(0)
    inputs = []
    for i, grammar in enumerate(grammars):
        plan = encoder.plan_page(300 + 50 * i, 400, scalable=True)
        image = rng.integers(0, 256, (plan.canvas_height, plan.canvas_width, 1), np.uint8)
        constraint = grammar.start() if grammar else None
        inputs.append(ModelInput(prompt, (encoder.encode(image // (i + 1)),), constraint))
    return inputs


def test_random_weights_write_valid_records(checkpoint_folder: Path) -> None:
    model = load(str(checkpoint_folder))
    schema = make_schema(SHORT, "short", "short")
    for document in (schema.document, relax(schema)):
        grammar = Grammar(document, model.vocabulary)
        answers = model.generate(model_inputs(str(checkpoint_folder), [grammar] * 5), 60)
        validator = Validator(document)
        for answer in answers:
            assert answer.finish_reason is FinishReason.STOP
            assert validator.violation(loads(answer.text)) is None
            assert not set(answer.token_ids) & set(model.vocabulary.special_ids)
        assert len({answer.text for answer in answers}) > 1


def test_the_bundled_model_writes_valid_receipts_or_is_cut() -> None:
    model, schema = load("nano"), load_schema("receipt.v1")
    grammar = Grammar(schema.document, model.vocabulary, compact=True)
    validator = Validator(schema.document)
    for generated in model.generate(model_inputs("nano", [grammar] * 4), 120):
        answer = Answer(
            SampleId("d" * 64, "a.png", 1, (1,)),
            Generation(
                generated.text,
                generated.token_ids,
                generated.logprobs,
                generated.finish_reason,
                generated.prompt_tokens,
            ),
        )
        result = parse_json(answer, validator.violation)
        if generated.finish_reason is FinishReason.STOP:
            assert result.state is State.OK
        else:
            assert result.state is State.TRUNCATED
            assert result.failure is not None
            assert result.failure.kind is FailureKind.TRUNCATED


def test_a_cut_answer_is_truncated(checkpoint_folder: Path) -> None:
    model = load(str(checkpoint_folder))
    grammar = Grammar(SHORT, model.vocabulary)
    (answer,) = model.generate(model_inputs(str(checkpoint_folder), [grammar]), 4)
    assert answer.finish_reason is FinishReason.LENGTH
    assert len(answer.token_ids) == 4


def test_rows_of_a_batch_have_their_own_grammar_or_none(checkpoint_folder: Path) -> None:
    model = load(str(checkpoint_folder))
    other = Grammar(load_schema("receipt.v1").document, model.vocabulary)
    grammars = [Grammar(SHORT, model.vocabulary), None, other]
    together = model.generate(model_inputs(str(checkpoint_folder), grammars), 30)
    assert together[0].text.lstrip().startswith('{"name": "')
    assert together[2].text.lstrip().startswith('{"merchant": "')
    for i in range(3):
        alone_inputs = model_inputs(str(checkpoint_folder), grammars)[i : i + 1]
        (alone,) = model.generate(alone_inputs, 30)
        assert together[i].token_ids == alone.token_ids
        assert together[i].logprobs == pytest.approx(alone.logprobs, abs=1e-4)


def test_logprobs_are_among_the_allowed_tokens(checkpoint_folder: Path) -> None:
    model = load(str(checkpoint_folder))
    grammar = Grammar(SHORT, model.vocabulary)
    (item,) = model_inputs(str(checkpoint_folder), [grammar])
    (answer,) = model.generate([item], 60)
    text = model.processor(text=[item.prompt], return_tensors="pt")
    ids = torch.cat([text["input_ids"], torch.tensor([answer.token_ids])], 1)
    with torch.inference_mode():
        features = torch.stack(model.features(item.tiles[0]))
        embedded = model.weights.model.inputs_merger(
            ids, model.weights.get_input_embeddings()(ids), features.flatten(0, 1)
        )
        logits = model.weights(inputs_embeds=embedded).logits[0, text["input_ids"].shape[1] - 1 :]
    state = grammar.start()
    forced = 0
    for token, logprob, row in zip(answer.token_ids, answer.logprobs, logits, strict=False):
        allowed = torch.from_numpy(state.allowed())
        expected = row.clone().masked_fill(~allowed, -torch.inf).log_softmax(-1)
        assert int(expected.argmax()) == token
        assert logprob == pytest.approx(float(expected[token]), abs=1e-4)
        forced += int(allowed.sum()) == 1
        state.accept(token)
    assert forced > 3, "a token that the grammar leaves no choice about is certain"
    assert answer.logprobs.count(0.0) >= forced


class Counting:
    """Allows token 1 twice, then the stop token."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def allowed(self) -> np.ndarray:
        mask = np.zeros(4, np.bool_)
        mask[1 if len(self.accepted) < 2 else 3] = True
        return mask

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)


def test_a_row_that_has_stopped_is_left_alone() -> None:
    constraint = Counting()
    logits = ConstrainedLogits([constraint, None], stop_ids=[3], never=[0])
    assert logits.logprobs() == [[], []]
    ids = torch.zeros(2, 1, dtype=torch.long)
    for _ in range(5):
        scores = logits(ids, torch.tensor([[9.0, 0.0, 5.0, 1.0, 7.0]] * 2))
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
        assert scores[:, 0].eq(-torch.inf).all(), "what is never generated"
    assert ids[0, 1:4].tolist() == [1, 1, 3]
    assert constraint.accepted == [1, 1], "the stop token is not the grammar's to take"
    assert ids[1, 1:].tolist() == [4] * 5, "tokens past a grammar's vocabulary need no grammar"
    free = torch.tensor([0.0, 5.0, 1.0, 7.0]).log_softmax(0).max()
    assert logits.logprobs()[1] == pytest.approx([float(free)] * 5)
    assert logits.logprobs()[0][:3] == [0.0, 0.0, 0.0]


def test_the_scores_given_are_not_changed() -> None:
    scores = torch.ones(1, 4)
    ConstrainedLogits([Counting()], [3], [0])(torch.zeros(1, 1, dtype=torch.long), scores)
    assert scores.eq(1).all()
