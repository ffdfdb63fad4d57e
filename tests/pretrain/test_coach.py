from __future__ import annotations

import pytest
import torch

from pipeline.pretrain.coach import Coach, vision_output
from pipeline.pretrain.collate import Batch, Collator
from pipeline.pretrain.examples import Geometry, answer_example, dense_example
from pipeline.pretrain.job import Architecture, LossWeights, Rates
from pipeline.pretrain.optimize import Optimizers, rate_factor, trained
from pipeline.pretrain.routing import route
from pipeline.pretrain.scratch import build_model

ALL = LossWeights(eye=1, place=1, memory=1, pointer_last=1, pointer_next=1, answer=1)
EYE = LossWeights(eye=1, place=0.3)


@pytest.fixture
def coach(shape: Architecture) -> Coach:
    return Coach(build_model(shape, seed=1), shape)


def test_the_answers_loss_is_the_stock_models_own(
    coach: Coach, collator: Collator, geometry: Geometry
) -> None:
    batch = collator([answer_example(number, geometry, 0.5) for number in range(3)])
    assert batch.tokens is not None
    with torch.no_grad():
        lesson = coach(batch, ALL)
        stock = coach.model(
            input_ids=batch.tokens.ids, pixel_values=batch.pixels, labels=batch.tokens.labels
        )
    assert float(lesson.parts["answer"]) == pytest.approx(float(stock.loss), rel=1e-5)


def test_pointers_follow_the_attention_of_the_stock_model(
    coach: Coach, collator: Collator, geometry: Geometry
) -> None:
    batch = collator([answer_example(4, geometry, 0.0)])
    tokens = batch.tokens
    assert tokens is not None
    coach.model.set_attn_implementation("eager")
    with torch.no_grad():
        lesson = coach(batch, ALL)
        attentions = coach.model(
            input_ids=tokens.ids, pixel_values=batch.pixels, output_attentions=True
        ).attentions
    image = int((tokens.ids[0] == coach.model.config.image_token_id).int().argmax())
    for layer, name, shift in ((1, "pointer_last", 0), (2, "pointer_next", 1)):
        found = [
            attentions[layer][0, head, position - shift, image + int(patch)].log()
            for position, patch in enumerate(tokens.patches[0])
            if int(patch) >= 0
            for head in range(2)
        ]
        assert float(lesson.parts[name]) == pytest.approx(-float(sum(found)) / len(found), rel=1e-3)


def test_a_stage_trains_what_its_losses_reach_and_nothing_else(
    coach: Coach, collator: Collator, geometry: Geometry
) -> None:
    pages = collator([dense_example(number, geometry) for number in range(2)])
    documents = collator([answer_example(number, geometry, 0.0) for number in range(2)])
    for weights, batch in ((EYE, pages), (LossWeights(memory=1), pages), (ALL, documents)):
        coach.zero_grad(set_to_none=True)
        coach(batch, weights).loss.backward()
        moved = {id(p) for p in coach.parameters() if p.grad is not None and p.grad.any()}
        asked = {id(p) for _, p in trained(coach, weights)}
        assert moved <= asked
        if weights is not ALL and weights.eye:
            assert moved == asked


def test_the_eye_learns(coach: Coach, collator: Collator, geometry: Geometry) -> None:
    batches = [collator([dense_example(4 * i + j, geometry) for j in range(4)]) for i in range(4)]
    optimizers = Optimizers(coach, EYE, Rates(), routed=False, precision=torch.float32)
    losses = []
    for step in range(24):
        lesson = coach(batches[step % 4], EYE)
        lesson.loss.backward()
        optimizers.step(1.0, wrote=False)
        losses.append(float(lesson.parts["eye"]))
    assert losses[-1] < losses[0] - 0.5
    assert not optimizers.flat.any()


def test_routed_latents_look_at_their_own_patch(collator: Collator, geometry: Geometry) -> None:
    inner = build_model(Architecture(), seed=1).model
    pages = collator([dense_example(number, geometry) for number in range(24)])
    with torch.no_grad():
        seen = vision_output(inner, pages.pixels)
    torch.manual_seed(0)
    assert route(inner, seen) > 0.3


def test_rates_warm_up_hold_and_decay() -> None:
    rates = Rates(warm_up=10, decay=0.4)
    assert rate_factor(0, 0.0, rates) == pytest.approx(0.1)
    assert rate_factor(50, 0.5, rates) == 1.0
    assert rate_factor(500, 0.8, rates) == pytest.approx(0.5)
    assert rate_factor(500, 1.0, rates) == pytest.approx(0.02)


def test_what_writes_stays_when_nothing_is_written(
    coach: Coach, collator: Collator, geometry: Geometry
) -> None:
    optimizers = Optimizers(coach, ALL, Rates(), routed=True, precision=torch.float32)
    text = coach.model.model.text_model

    def step(batch: Batch) -> list[torch.Tensor]:
        before = [parameter.detach().clone() for parameter in text.parameters()]
        coach(batch, ALL).loss.backward()
        optimizers.step(1.0, wrote=batch.tokens is not None)
        after = text.parameters()
        return [new - old for new, old in zip(after, before, strict=True)]

    assert all(moved.any() for moved in step(collator([answer_example(1, geometry, 0.0)])))
    assert not any(moved.any() for moved in step(collator([dense_example(1, geometry)])))
