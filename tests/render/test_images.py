from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ItemError
from pipeline.records import FailureKind


def saved(image: Image.Image, format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **options)
    return file.getvalue()


def gradient(width: int = 120, height: int = 60) -> np.ndarray:
    return np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)


def draw_alone(renderer, content: bytes) -> np.ndarray:
    """The drawing without its canvas's margin."""
    assert renderer.open(content).n_pages == 1
    return renderer.draw(1).image[:-4, :-8]


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_lossless_pixels_arrive_unchanged(renderer, format_):
    colour = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    content = saved(Image.fromarray(colour), format_, lossless=True)
    assert (draw_alone(renderer, content) == colour).all()
    grey = gradient()
    content = saved(Image.fromarray(grey), format_, lossless=True)
    assert (draw_alone(renderer, content) == grey[:, :, None]).all()


def test_large_images_are_shrunk_bilinear_and_small_ones_left(renderer):
    image = Image.fromarray(gradient(1000, 500))
    expected = np.asarray(image.resize((400, 200), Image.Resampling.BILINEAR))
    assert (draw_alone(renderer, saved(image, "PNG")) == expected[:, :, None]).all()
    assert draw_alone(renderer, saved(Image.new("L", (3, 2)), "PNG")).shape == (2, 3, 1)


@pytest.mark.parametrize("format_", ["JPEG", "TIFF", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honoured(renderer, format_, orientation):
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    image = Image.fromarray(gradient(128, 64))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = image.transpose(turns[orientation]) if orientation > 1 else image
    drawn = draw_alone(renderer, saved(image, format_, exif=exif))
    assert drawn.shape == (*np.asarray(upright).shape, 1)
    difference = drawn[:, :, 0].astype(int) - np.asarray(upright)
    assert np.abs(difference).max() < 10


def test_tiff_frames_are_pages_of_their_own_size_in_any_order(renderer):
    frames = [Image.new("L", (50 + index, 40), 10 * index) for index in range(12)]
    content = saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert renderer.open(content).n_pages == 12
    for number in (12, 1, 7):
        image = renderer.draw(number).image
        assert image.shape == (44, 49 + number + 8, 1)
        assert image[0, 0, 0] == 10 * (number - 1)


def test_group_4_fax_frames(renderer):
    page = Image.new("1", (200, 100), 1)
    page.paste(0, (0, 0, 100, 100))
    content = saved(page, "TIFF", compression="group4", save_all=True, append_images=[page])
    assert renderer.open(content).n_pages == 2
    image = renderer.draw(2).image
    assert (image[:100, :100] == 0).all()
    assert (image[:, 100:] == 255).all()


def test_animated_webp_shows_its_first_frame(renderer):
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("red", "blue")]
    content = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert tuple(draw_alone(renderer, content)[0, 0]) == (255, 0, 0)


def test_transparency_is_laid_on_white(renderer):
    layer = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    layer.paste((0, 0, 255, 128), (0, 0, 20, 20))
    for format_ in ("PNG", "WEBP", "TIFF"):
        drawn = draw_alone(renderer, saved(layer, format_, lossless=True))
        assert tuple(drawn[5, 5]) == (127, 127, 255)
        assert tuple(drawn[5, 30]) == (255, 255, 255)
    grey = draw_alone(renderer, saved(Image.new("LA", (40, 20), (0, 0)), "PNG"))
    assert grey.min() == 255


def test_palettes(renderer):
    image = Image.new("P", (40, 20), 1)
    image.putpalette([0, 0, 0, 250, 128, 0])
    assert tuple(draw_alone(renderer, saved(image, "PNG"))[3, 3]) == (250, 128, 0)
    assert draw_alone(renderer, saved(image, "PNG", transparency=1)).min() == 255


def test_cmyk(renderer):
    for format_ in ("JPEG", "TIFF"):
        drawn = draw_alone(renderer, saved(Image.new("CMYK", (40, 20), (0, 255, 255, 0)), format_))
        assert drawn[3, 3, 0] > 200
        assert drawn[3, 3, 1:].max() < 60


def test_sixteen_bits_and_one_bit(renderer):
    wide = np.linspace(0, 65535, 800).reshape(20, 40).astype(np.uint16)
    for format_ in ("PNG", "TIFF"):
        drawn = draw_alone(renderer, saved(Image.fromarray(wide), format_))
        assert (drawn[:, :, 0] == wide >> 8).all()
    bits = Image.fromarray(gradient() > 100)
    assert (draw_alone(renderer, saved(bits, "PNG"))[:, :, 0] == (gradient() > 100) * 255).all()


def test_samples_of_32_bits_are_unsupported(renderer):
    renderer.open(saved(Image.new("F", (9, 9)), "TIFF"))
    with pytest.raises(ItemError) as caught:
        renderer.draw(1)
    assert caught.value.kind is FailureKind.UNSUPPORTED


def test_decompression_bomb_is_refused_before_it_is_decoded(make_renderer):
    content = saved(Image.new("1", (24_000, 24_000)), "PNG")
    with make_renderer(cpu_s=10) as renderer:
        renderer.open(content)
        with pytest.raises(ItemError, match="24000 x 24000") as caught:
            renderer.draw(1)
        assert caught.value.kind is FailureKind.RENDER_MEMORY
        assert draw_alone(renderer, saved(Image.new("L", (9, 9)), "PNG")).shape == (9, 9, 1)
