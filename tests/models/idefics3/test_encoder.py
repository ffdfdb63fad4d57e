"""Tiles against the stock image processor, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from pipeline.models.base import PagePlan
from pipeline.models.idefics3 import Idefics3Encoder
from pipeline.models.pixels import look_up, pixel_table

A4 = (595.276, 841.89)
SIZES = [A4, (842, 595), (300, 300), (80, 700), (613, 791), (5000, 9)]
PICTURES = [(1, 1), (40, 30), (1, 900), (999, 333), (57, 56)]


@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize(
    ("longest", "square", "sizes"),
    [(1456, 364, [A4]), (232, 58, SIZES + PICTURES), (300, 58, SIZES), (56, 56, SIZES)],
)
def test_planned_pages_are_as_the_stock_makes_them(
    longest: int, square: int, sizes: list[tuple[float, float]], splitting: bool, draw_page: Any
) -> None:
    stock = Idefics3ImageProcessorPil(
        size={"longest_edge": longest},
        max_image_size={"longest_edge": square},
        do_image_splitting=splitting,
    )
    encoder = Idefics3Encoder(longest, square, splitting, int(stock.resample))
    for size in sizes:
        plan = encoder.plan_page(*size, size not in PICTURES)
        image = draw_page(plan, 1 + 2 * (plan.width % 2))
        tiles = encoder.encode(image)
        picture = PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        found = stock([[picture]], return_tensors="np", return_row_col_info=True)
        rows, columns = found["rows"][0][0], found["cols"][0][0]
        shapes = [(rows * square, columns * square)] * (rows > 0) + [(square, square)]
        assert [tile.shape[:2] for tile in tiles] == shapes
        squares = [
            look_up(pixel_table(stock), [tile[y : y + square, x : x + square]])[0]
            for tile in tiles
            for y in range(0, tile.shape[0], square)
            for x in range(0, tile.shape[1], square)
        ]
        assert all(tile.shape[2] == image.shape[2] for tile in tiles)
        assert np.array_equal(squares, found["pixel_values"][0])


def test_pages_are_drawn_at_the_size_of_the_grid_and_not_stretched(draw_page: Any) -> None:
    encoder = Idefics3Encoder(1456, 364, True, 1)
    assert encoder.plan_page(*A4, True) == PagePlan(1029, 1456, 1092, 1456)
    assert encoder.plan_page(728, 400, False) == PagePlan(728, 400, 728, 546)
    white = draw_page(encoder.plan_page(*A4, True), 1)
    grid, whole = encoder.encode(white)
    assert np.array_equal(grid, white)
    assert whole.shape == (364, 364, 1)
    unsplit = Idefics3Encoder(1456, 364, False, 1)
    assert unsplit.plan_page(*A4, True) == PagePlan(1029, 1456, 1029, 1456)
