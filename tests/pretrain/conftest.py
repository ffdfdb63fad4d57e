from __future__ import annotations

from typing import Any

import pytest

from pipeline.pretrain.collate import Collator
from pipeline.pretrain.examples import Geometry
from pipeline.pretrain.job import Architecture, Tower
from pipeline.pretrain.scratch import build_processor, prompts


@pytest.fixture(scope="session")
def shape() -> Architecture:
    """A reader too small to read, of the true classes and the true canvas."""
    return Architecture(
        vision=Tower(width=32, layers=1, heads=2, feed_forward=64),
        resampler_heads=2,
        text=Tower(width=32, layers=3, heads=2, feed_forward=64),
    )


@pytest.fixture(scope="session")
def geometry(shape: Architecture) -> Geometry:
    return Geometry(shape.grid, shape.patch)


@pytest.fixture(scope="session")
def processor(shape: Architecture) -> Any:
    return build_processor(shape)


@pytest.fixture(scope="session")
def collator(processor: Any) -> Collator:
    return Collator(processor, prompts(processor))
