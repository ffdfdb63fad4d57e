"""Tiles against the stock processor, bit for bit, and the settings that this family refuses."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import PagePlan
from pipeline.models.families import family_of, resolve
from pipeline.models.idefics.encoder import IdeficsEncoder
from pipeline.models.pixels import look_up, pixel_table

PUBLISHED = IdeficsEncoder(edge=224, resample=PIL.Image.Resampling.BICUBIC)


@cache
def stock() -> Any:
    return IdeficsImageProcessorPil()


def noise(width: int, height: int, channels: int) -> np.ndarray:
    shape = (height, width, channels)
    return np.random.default_rng(width * 31 + height).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("size", "scalable"),
    [
        ((595.276, 841.89), True),
        ((72.0, 7200.0), True),
        ((0.5, 0.7), True),
        ((1, 5000), False),
        ((2003, 1001), False),
        ((100, 37), False),
        ((224, 224), False),
        ((1, 1), False),
    ],
)
def test_planned_pages_are_as_the_stock_makes_them(
    size: tuple[float, float], scalable: bool, channels: int
) -> None:
    plan = PUBLISHED.plan_page(*size, scalable)
    assert plan.canvas_width == plan.canvas_height, "a square is not distorted"
    page = np.full((plan.canvas_height, plan.canvas_width, channels), 255, np.uint8)
    page[: plan.height, : plan.width] = noise(plan.width, plan.height, channels)
    (tile,) = PUBLISHED.encode(page)
    assert (tile.dtype, tile.shape) == (np.uint8, (224, 224, channels))
    (expected,) = stock()(PIL.Image.fromarray(page.squeeze(2) if channels == 1 else page))
    assert np.array_equal(look_up(pixel_table(stock()), [tile])[0], expected)


def test_a_page_keeps_its_aspect_and_small_pictures_their_pixels() -> None:
    assert PUBLISHED.plan_page(595.276, 841.89, True) == PagePlan(158, 224, 224, 224)
    assert PUBLISHED.plan_page(100, 37, False) == PagePlan(100, 37, 100, 100)


@pytest.mark.parametrize("size", [(300, 200), (41, 90)])
def test_any_image_is_squashed_as_the_stock_does(size: tuple[int, int]) -> None:
    page = noise(*size, 3)
    (expected,) = stock()(PIL.Image.fromarray(page))
    assert np.array_equal(look_up(pixel_table(stock()), PUBLISHED.encode(page))[0], expected)


def test_the_encoder_follows_the_checkpoint(idefics_folder: Path) -> None:
    for splitting in ("auto", False):
        settings = ModelSettings(name=str(idefics_folder), image_splitting=splitting)
        checkpoint = resolve(settings)
        assert checkpoint.family == "idefics"
        found = family_of(checkpoint).encoder(checkpoint, settings)
        assert found == IdeficsEncoder(edge=42, resample=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_splitting", True),
        ("image_splitting", "adaptive"),
        ("longest_edge", 448),
        ("shortest_edge", 224),
        ("attention", "flash_attention_2"),
    ],
)
def test_settings_that_mean_nothing_here_are_refused(
    idefics_folder: Path, key: str, value: object
) -> None:
    settings = ModelSettings(name=str(idefics_folder), **{key: value})
    checkpoint = resolve(settings)
    with pytest.raises(CheckpointError, match=rf"^model\.{key}: ") as caught:
        family_of(checkpoint).encoder(checkpoint, settings)
    assert "\n" not in str(caught.value)
