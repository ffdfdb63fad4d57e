"""One step of each method: what may learn does, and the rest stays as it is, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import JobError
from pipeline.finetune.freezing import adapt, freeze, remember_less
from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.learner import Learner

MakeJob = Callable[..., FinetuneJob]
MakeTeacher = Callable[[FinetuneJob], tuple[Any, Any]]


def step(learner: Learner) -> set[str]:
    """Take a step, and return the names of the parameters that changed."""
    before = {name: value.detach().clone() for name, value in learner.named_parameters()}
    page = np.random.default_rng(0).integers(0, 256, (42, 56, 3), dtype=np.uint8)
    tokenizer = learner.whole.processor.tokenizer
    text = learner.whole.widened("User:<image>Read it.\nAssistant:EUR", [[page.shape]])
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    labels = torch.where(torch.arange(ids.shape[1]) > ids.shape[1] - 3, ids, -100)
    learner.train()
    # Weights made at random are far from where anything is flat: one plain step moves them all.
    optimizer = torch.optim.SGD([p for p in learner.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # half of an adapter is zero, and holds the other half's gradient back
        optimizer.zero_grad()
        learner(ids, labels, torch.ones_like(ids), [[[page]]])["loss"].backward()
        optimizer.step()
    now = dict(learner.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value, now[name])}


def parts(names: set[str]) -> set[str]:
    return {name.split(".")[2] if ".lm_head" not in name else "lm_head" for name in names}


def test_full_trains_all_that_is_not_frozen(make_job: MakeJob, make_teacher: MakeTeacher) -> None:
    everything = {"vision_model", "connector", "text_model", "lm_head"}
    for settings, expected in (
        ({}, everything),
        ({"text": True}, {"vision_model", "connector"}),
        ({"vision": True}, everything - {"vision_model"}),
        ({"text": True, "except": ["lm_head"]}, {"vision_model", "connector", "lm_head"}),
    ):
        job = make_job(method="full", freeze=settings)
        _, model = make_teacher(job)
        freeze(job, model)
        assert parts(step(Learner(model, model.weights))) == expected


def test_what_the_checkpoints_config_freezes_is_frozen(
    make_job: MakeJob, make_teacher: MakeTeacher
) -> None:
    job = make_job(method="full")
    _, model = make_teacher(job)
    # As IDEFICS-1 says it.
    model.weights.config.freeze_text_layers = True
    model.weights.config.freeze_vision_layers = True
    model.weights.config.freeze_vision_module_exceptions = ["LayerNorm"]
    freeze(job, model)
    changed = step(Learner(model, model.weights))
    assert {name for name in changed if "connector" not in name} == {
        name
        for name, _ in Learner(model, model.weights).named_parameters()
        if "vision_model" in name and "norm" in name
    }


def test_lora_trains_its_adapters_alone(make_job: MakeJob, make_teacher: MakeTeacher) -> None:
    job = make_job(lora={"rank": 2})
    _, model = make_teacher(job)
    learner = Learner(model, adapt(job, model))
    changed = step(learner)
    assert changed == {name for name, _ in learner.named_parameters() if ".lora_" in name}
    assert any("q_proj" in name for name in changed)
    assert any("connector" in name for name in changed)
    assert not any("vision_model" in name or "lm_head" in name for name in changed)


def test_qlora_trains_adapters_beside_weights_of_four_bits(
    make_job: MakeJob, make_teacher: MakeTeacher
) -> None:
    job = make_job(
        model={"name": make_job().model.name, "quantization": "nf4"},
        lora={"rank": 2, "targets": ["q_proj"]},
        freeze={"vision": False},
    )
    _, model = make_teacher(job)
    learner = Learner(model, adapt(job, model))
    frozen = {n: p for n, p in learner.named_parameters() if p.dtype == torch.uint8}
    assert any("q_proj" in name for name in frozen)
    changed = step(learner)
    assert changed == {name for name, _ in learner.named_parameters() if ".lora_" in name}
    assert any("vision_model" in name for name in changed)


def test_activations_computed_twice_give_the_same_gradients(
    make_job: MakeJob, make_teacher: MakeTeacher
) -> None:
    job = make_job(lora={"rank": 2})
    found = []
    for less in (False, True):
        _, model = make_teacher(job)
        if less:
            remember_less(model.weights)
        torch.manual_seed(0)
        learner = Learner(model, adapt(job, model))
        step(learner)
        found.append({name: value for name, value in learner.named_parameters() if "lora" in name})
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_a_job_that_leaves_nothing_to_learn_is_refused(
    make_job: MakeJob, make_teacher: MakeTeacher
) -> None:
    _, model = make_teacher(make_job())
    with pytest.raises(JobError, match=r"lora\.targets: no layer .* there are .*q_proj"):
        adapt(make_job(lora={"targets": ["query"]}), model)
    everything = {"text": True, "vision": True}
    model.vision_parts = ("model.vision_model", "model.connector")
    with pytest.raises(JobError, match="nothing is left to learn"):
        freeze(make_job(method="full", freeze=everything), model)
