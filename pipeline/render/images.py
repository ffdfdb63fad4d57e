"""PNG, JPEG, WebP and TIFF through Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from pipeline.errors import ItemError
from pipeline.records import FailureKind, Image, MediaType

_FORMATS = {
    MediaType.PNG: "PNG",
    MediaType.JPEG: "JPEG",
    MediaType.WEBP: "WEBP",
    MediaType.TIFF: "TIFF",
}
_ORIENTATION = 0x0112
_TRANSPOSED = (5, 6, 7, 8)

# The limit on pixels comes from the memory limit, which names the key to raise.
Pillow.MAX_IMAGE_PIXELS = None


class ImageDocument:
    """An open image file; a TIFF has a page a frame, any other format one page.

    Raises `ItemError`: unreadable.
    """

    scalable = False
    has_forms = False

    def __init__(self, path: str, media_type: MediaType, memory_mb: int) -> None:
        try:
            self._image = Pillow.open(path, formats=[_FORMATS[media_type]])
        except UnidentifiedImageError:
            message = f"the file begins like {media_type} but cannot be read as such"
            raise ItemError(FailureKind.UNREADABLE, message) from None
        self._memory_mb = memory_mb
        frames = getattr(self._image, "n_frames", 1) if media_type is MediaType.TIFF else 1
        self.n_pages: int = frames

    def size(self, number: int) -> tuple[float, float]:
        """(width, height) in pixels as displayed, after the EXIF orientation.

        Raises:
            ItemError: render_memory if the decoded image would not fit.
        """
        image = self._seek(number)
        width, height = image.size
        return (height, width) if _orientation(image) in _TRANSPOSED else (width, height)

    def draw(self, number: int, image: Image) -> int:
        """Draw page `number` (from 1) onto all of `image` (height, width, 3), resized if need be.

        Returns the page's rotation, as documents do that have one: 0.

        Raises:
            ItemError: as `size`; unsupported for samples of 32 bits.
        """
        source = self._seek(number)
        source.load()
        upright = ImageOps.exif_transpose(source) if _orientation(source) > 1 else source
        shown = _to_8_bits(upright)
        height, width, _ = image.shape
        if shown.size != (width, height):
            shown = shown.resize((width, height), Pillow.Resampling.BILINEAR)
        pixels = np.asarray(shown)
        image[:] = pixels if pixels.ndim == 3 else pixels[:, :, None]
        return 0

    def close(self) -> None:
        """Close the file."""
        self._image.close()

    def _seek(self, number: int) -> Pillow.Image:
        if self.n_pages > 1:
            self._image.seek(number - 1)
        # Before anything else: to look for a PNG's EXIF is to decode it.
        _check_memory(self._image, self._memory_mb)
        return self._image


def _orientation(image: Pillow.Image) -> int:
    """The EXIF orientation still to be applied, 1 for none. Pillow turns TIFF frames itself."""
    return 1 if image.format == "TIFF" else int(image.getexif().get(_ORIENTATION, 1))


def _check_memory(image: Pillow.Image, memory_mb: int) -> None:
    # Pillow keeps one byte a pixel for one channel (two for 16 bits), and four for more.
    bytes_a_pixel = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2}.get(image.mode, 4)
    width, height = image.size
    if width * height * bytes_a_pixel > memory_mb << 20:
        message = f"the image of {width} x {height} pixels does not fit into {memory_mb} MiB"
        raise ItemError(FailureKind.RENDER_MEMORY, message)


def _to_8_bits(image: Pillow.Image) -> Pillow.Image:
    """The image in mode L or RGB; transparency is laid on white."""
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Pillow.new("RGBA", layer.size, "white")
        return Pillow.alpha_composite(white, layer).convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I;16"):
        return Pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        message = "the image has samples of 32 bits; convert it to 8 or 16"
        raise ItemError(FailureKind.UNSUPPORTED, message)
    return image.convert("RGB")
