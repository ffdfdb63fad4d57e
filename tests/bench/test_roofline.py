"""Costs counted by hand, and by torch on the bundled model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.bench.costs import vision_shape
from pipeline.bench.report import stage_rows
from pipeline.bench.roofline import (
    Cost,
    Machine,
    TextShape,
    VisionShape,
    decode_cost,
    prefill_cost,
    vision_cost,
)
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Placement
from pipeline.models.families import family_of, resolve


def test_a_machine_is_bound_by_the_slower_of_operations_and_traffic() -> None:
    machine = Machine(flops=100, bandwidth=10)
    assert machine.seconds(200, 10) == 2
    assert machine.seconds(200, 50) == 5


TEXT = TextShape(all_weights=80, choice_weights=20, weight_bytes=2, token_bytes=3)


def test_decoding_reads_the_weights_together_and_the_context_alone() -> None:
    cost = decode_cost(TEXT, rows=4, tokens=50, choices=30, passes=20, context=400)
    assert cost.flops == 2 * (80 * 50 + 20 * 30)
    assert cost.moved == 20 * (100 * 2 / 4 + 400 * 3)


def test_a_prompt_reads_the_weights_once_for_its_group() -> None:
    assert prefill_cost(TEXT, rows=4, tokens=7) == Cost(2 * (80 * 7 + 20), 50)


def test_vision_is_counted_tile_by_tile() -> None:
    shape = VisionShape(
        patch_weights=3,
        mixed_weights=5,
        latent_weights=7,
        layers=2,
        width=4,
        latents=1,
        resampler_layers=1,
        resampler_width=6,
    )
    cost = vision_cost(shape, [2, 2], weight_bytes=2, tiles_together=4)
    products = 3 * 2 + 5 * 3 + 7 * 1
    pairs = 2 * 4 * 2 * 2 + 1 * 6 * 1 * 3
    assert cost == Cost(2 * (2 * products + 4 * pairs), 15 * 2 * 2 / 4)


def test_vision_costs_what_torch_counts() -> None:
    settings = ModelSettings(name="nano")
    checkpoint = resolve(settings)
    model: Any = family_of(checkpoint).load(checkpoint, settings, Placement("cpu", 1))
    counter = FlopCounterMode(display=False)
    # Torch counts attention only where it is made of products.
    with counter, sdpa_kernel(SDPBackend.MATH):
        model.features([np.zeros((168, 224, 1), np.uint8)])
    cost = vision_cost(vision_shape(model.weights), [12 * 16], weight_bytes=4, tiles_together=1)
    assert cost.flops == counter.get_total_flops()


def test_stages_without_a_cost_have_no_utilisation() -> None:
    seconds = dict.fromkeys(
        ("rasterize", "encode", "vision", "prefill", "decode", "parse", "write"), 0.5
    )
    rows = {
        row.stage: row
        for row in stage_rows(
            seconds, {"vision": Cost(20, 0), "decode": Cost(0, 1)}, Machine(100, 10)
        )
    }
    assert rows["vision"].utilisation == pytest.approx(0.4)
    assert rows["decode"].utilisation == pytest.approx(0.2)
    assert rows["parse"].utilisation is None
    assert rows["parse"].pages_a_second == 2
