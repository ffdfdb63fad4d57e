"""Tiles against the stock processor, bit for bit."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import AutoProcessor
from transformers.image_utils import SizeDict
from transformers.models.idefics2.image_processing_pil_idefics2 import (
    get_resize_output_image_size,
)

from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import PagePlan, Placement
from pipeline.models.families import BUNDLED, resolve
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.models.idefics2.model import Idefics2Model
from pipeline.records import Image

LARGE = (980, 378)
NANO = (224, 168)
EDGES = st.sampled_from([LARGE, NANO])
A4 = (595.276, 841.89)
PDF_PAGES = [(841.89, 595.276), (612.0, 792.0), (72.0, 7200.0), (14400.0, 3.0), (0.5, 0.7)]
PICTURES = [(1, 1), (1, 5000), (2003, 1001), (981, 980), (1959, 1961), (757, 1960)]


@cache
def stock_processor(edges: tuple[int, int], splitting: bool) -> Any:
    found = AutoProcessor.from_pretrained(BUNDLED / "nano", backend="pil")
    found.image_processor.size = SizeDict(longest_edge=edges[0], shortest_edge=edges[1])
    found.image_processor.do_image_splitting = splitting
    return found


@cache
def nano() -> Idefics2Model:
    checkpoint = resolve(ModelSettings(name="nano"))
    model = Idefics2Model(checkpoint, ModelSettings(name="nano"), Placement())
    assert isinstance(model, Idefics2Model)
    return model


def stock_tiles(image: Image, edges: tuple[int, int], splitting: bool) -> list[NDArray[Any]]:
    """The stock float32 (3, height, width) of each tile, without the padding."""
    picture = PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    batch = stock_processor(edges, splitting)(
        images=[[picture]], text=["<image>"], return_tensors="np"
    )
    tiles = []
    for values, mask in zip(
        batch["pixel_values"][0], batch["pixel_attention_mask"][0], strict=True
    ):
        height, width = int(mask[:, 0].sum()), int(mask[0].sum())
        assert mask.sum() == height * width == mask[:height, :width].sum()
        tiles.append(values[:, :height, :width])
    return tiles


def normalised(tile: Image) -> NDArray[np.float32]:
    """A tile through the model's table of pixel values, uncut: float32 (3, height, width)."""
    table = nano()._levels
    channels = [tile[:, :, c if tile.shape[2] == 3 else 0] for c in range(3)]
    return np.stack([row.take(channel) for row, channel in zip(table, channels, strict=True)])


def page_image(plan: PagePlan, channels: int) -> Image:
    """Noise of the plan's size on its white canvas."""
    canvas = np.full((plan.canvas_height, plan.canvas_width, channels), 255, np.uint8)
    canvas[: plan.height, : plan.width] = noise(plan.width, plan.height, channels)
    return canvas


def noise(width: int, height: int, channels: int) -> Image:
    return np.random.default_rng(width * 31 + height).integers(
        0, 256, (height, width, channels), np.uint8
    )


def assert_as_stock(image: Image, encoder: Idefics2Encoder) -> None:
    tiles = encoder.encode(image)
    stock = stock_tiles(image, (encoder.longest_edge, encoder.shortest_edge), encoder.splitting)
    assert [t.shape[:2] for t in tiles] == [s.shape[1:] for s in stock]
    assert len(tiles) == (5 if encoder.splitting else 1)
    for tile, expected in zip(tiles, stock, strict=True):
        assert tile.dtype == np.uint8
        assert tile.shape[2] == image.shape[2]
        assert np.array_equal(normalised(tile), expected)
        (pixels,) = nano().pixels([tile]).numpy()
        assert pixels.shape[1:] == (tile.shape[0] // 14 * 14, tile.shape[1] // 14 * 14)
        assert np.array_equal(pixels, expected[:, : pixels.shape[1], : pixels.shape[2]])


@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize(
    ("size", "scalable"), [(s, True) for s in PDF_PAGES] + [(s, False) for s in PICTURES]
)
def test_planned_pages_are_as_the_stock_makes_them(
    size: tuple[float, float], scalable: bool, splitting: bool
) -> None:
    encoder = Idefics2Encoder(*LARGE, splitting)
    plan = encoder.plan_page(*size, scalable)
    assert_as_stock(page_image(plan, channels=1 + 2 * (plan.width % 2)), encoder)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("splitting", [True, False])
def test_an_a4_page_is_as_the_stock_makes_it(splitting: bool, channels: int) -> None:
    encoder = Idefics2Encoder(*LARGE, splitting)
    plan = encoder.plan_page(*A4, True)
    assert (plan.width, plan.height) == ((1386, 1960) if splitting else (693, 980))
    assert_as_stock(page_image(plan, channels), encoder)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("splitting", [True, False])
@pytest.mark.parametrize("size", [(2001, 1303), (2000, 60), (61, 1999), (3, 2)])
def test_any_large_picture_is_as_the_stock_makes_it(
    size: tuple[int, int], splitting: bool, channels: int
) -> None:
    assert_as_stock(noise(*size, channels), Idefics2Encoder(*LARGE, splitting))


@settings(max_examples=50, deadline=None)
@given(
    width=st.integers(2, 600),
    height=st.integers(2, 600),
    channels=st.sampled_from([1, 3]),
    splitting=st.booleans(),
)
def test_any_picture_is_as_the_stock_makes_it(
    width: int, height: int, channels: int, splitting: bool
) -> None:
    assert_as_stock(noise(width, height, channels), Idefics2Encoder(*NANO, splitting))


@settings(max_examples=25, deadline=None)
@given(
    width=st.floats(0.5, 2000),
    height=st.floats(0.5, 2000),
    scalable=st.booleans(),
    splitting=st.booleans(),
    canvas=st.sampled_from([None, (168, 224)]),
)
def test_any_planned_page_is_as_the_stock_makes_it(
    width: float,
    height: float,
    scalable: bool,
    splitting: bool,
    canvas: tuple[int, int] | None,
) -> None:
    encoder = Idefics2Encoder(*NANO, splitting, canvas)
    size = (width, height) if scalable else (float(int(width + 1)), float(int(height + 1)))
    assert_as_stock(page_image(encoder.plan_page(*size, scalable), 3), encoder)


@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_are_top_left_top_right_bottom_left_bottom_right_and_the_whole(
    channels: int,
) -> None:
    image = np.zeros((757, 759, channels), np.uint8)
    image[:378, :379], image[:378, 379:] = 10, 20
    image[378:, :379], image[378:, 379:] = 30, 40
    tiles = Idefics2Encoder(*LARGE, splitting=True).encode(image)
    assert [set(tile.flat) for tile in tiles[:4]] == [{10}, {20}, {30}, {40}]
    assert [t.shape for t in tiles[:2]] == [(378, 379, channels), (378, 380, channels)]
    np.testing.assert_array_equal(tiles[4], image)


@pytest.mark.parametrize(("width", "height"), [(300, 1), (1, 1)])
def test_a_picture_one_pixel_high_cannot_be_split_and_the_stock_cannot_either(
    width: int, height: int
) -> None:
    """Planned pages never are: the canvas of a split page is at least twice the shortest edge."""
    with pytest.raises(ZeroDivisionError):
        stock_tiles(noise(width, height, 3), NANO, splitting=True)
    with pytest.raises(ZeroDivisionError):
        Idefics2Encoder(*NANO, splitting=True).encode(noise(width, height, 3))


@settings(max_examples=500, deadline=None)
@given(width=st.integers(1, 60_000), height=st.integers(1, 60_000), edges=EDGES)
def test_a_tiles_size_is_the_stock_size(width: int, height: int, edges: tuple[int, int]) -> None:
    shaped = np.broadcast_to(np.uint8(0), (3, height, width))
    size = SizeDict(longest_edge=edges[0], shortest_edge=edges[1])
    expected = get_resize_output_image_size(shaped, size)
    assert Idefics2Encoder(*edges, splitting=False).tile_size(width, height)[::-1] == expected


SIDES = st.one_of(st.floats(0.01, 14_400), st.integers(1, 30_000).map(float))


@settings(max_examples=500, deadline=None)
@given(
    width=SIDES,
    height=SIDES,
    scalable=st.booleans(),
    edges=EDGES,
    splitting=st.booleans(),
    canvas=st.sampled_from([None, (168, 224), (224, 224)]),
)
def test_a_drawing_fits_its_canvas_and_keeps_its_aspect(
    width: float,
    height: float,
    scalable: bool,
    edges: tuple[int, int],
    splitting: bool,
    canvas: tuple[int, int] | None,
) -> None:
    plan = Idefics2Encoder(*edges, splitting, canvas).plan_page(width, height, scalable)
    assert 1 <= plan.width <= plan.canvas_width
    assert 1 <= plan.height <= plan.canvas_height
    if canvas is not None:
        assert (plan.canvas_width, plan.canvas_height) == canvas
    (short, drawn_short), (long, drawn_long) = sorted([(width, plan.width), (height, plan.height)])
    # Each side is rounded by itself, and the longer one's rounding shifts the other's.
    shift = 0.5 + 0.5 * short / long
    assert drawn_short == 1 or abs(drawn_short - drawn_long * short / long) <= shift + 1e-6


@settings(max_examples=300, deadline=None)
@given(width=st.integers(1, 30_000), height=st.integers(1, 30_000), edges=EDGES, data=st.data())
def test_a_picture_is_never_enlarged(
    width: int, height: int, edges: tuple[int, int], data: st.DataObject
) -> None:
    encoder = Idefics2Encoder(
        *edges, data.draw(st.booleans()), data.draw(st.sampled_from([None, (168, 224)]))
    )
    plan = encoder.plan_page(width, height, scalable=False)
    assert plan.width <= width
    assert plan.height <= height


@settings(max_examples=200, deadline=None)
@given(width=SIDES, height=SIDES, edges=EDGES, splitting=st.booleans())
def test_a_page_is_drawn_at_the_size_its_tiles_look_at(
    width: float, height: float, edges: tuple[int, int], splitting: bool
) -> None:
    plan = Idefics2Encoder(*edges, splitting).plan_page(width, height, scalable=True)
    assert max(plan.width, plan.height) == edges[0] * (2 if splitting else 1)


@settings(max_examples=500, deadline=None)
@given(width=SIDES, height=SIDES, scalable=st.booleans(), edges=EDGES, splitting=st.booleans())
def test_no_tile_of_a_planned_page_is_enlarged_or_stretched(
    width: float, height: float, scalable: bool, edges: tuple[int, int], splitting: bool
) -> None:
    encoder = Idefics2Encoder(*edges, splitting)
    plan = encoder.plan_page(width, height, scalable)
    across, down = plan.canvas_width, plan.canvas_height
    crops = [(across, down)]
    if splitting:
        crops += [
            (w, h) for w in (across // 2, -(-across // 2)) for h in (down // 2, -(-down // 2))
        ]
    for crop in crops:
        tile = encoder.tile_size(*crop)
        scale = min(1.0, edges[0] / max(crop))
        assert all(t <= c for t, c in zip(tile, crop, strict=True))
        assert all(abs(t - c * scale) < 1 + 1e-6 for t, c in zip(tile, crop, strict=True))


def test_a_page_without_need_of_resizing_is_passed_on_untouched(tmp_path: Path) -> None:
    image = noise(700, 900, 3)
    PIL.Image.fromarray(image).save(tmp_path / "page.png")
    read = np.asarray(PIL.Image.open(tmp_path / "page.png"))
    (tile,) = Idefics2Encoder(*LARGE, splitting=False).encode(read)
    np.testing.assert_array_equal(tile, image)
    assert tile.flags.c_contiguous
