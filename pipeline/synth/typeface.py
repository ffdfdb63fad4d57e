"""The bundled typefaces and the widths of their characters: a layout is then arithmetic."""

from __future__ import annotations

import string
from enum import StrEnum
from functools import cache
from pathlib import Path

from PIL import ImageFont

CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " €£"
"""Every character that a document may print."""

_FOLDER = Path(__file__).parent / "fonts"
_UNITS_PER_EM = 2048


class Typeface(StrEnum):
    """A font file under `fonts/`; the licences lie beside the files."""

    DEJAVU_SANS_MONO = "DejaVuSansMono.ttf"
    DEJAVU_SANS_MONO_BOLD = "DejaVuSansMono-Bold.ttf"
    LIBERATION_MONO = "LiberationMono-Regular.ttf"
    LIBERATION_MONO_BOLD = "LiberationMono-Bold.ttf"
    DEJAVU_SANS = "DejaVuSans.ttf"
    LIBERATION_SANS = "LiberationSans-Regular.ttf"

    @property
    def path(self) -> Path:
        """Where the font file lies."""
        return _FOLDER / self.value

    @property
    def ascent(self) -> float:
        """Height of the top of a line above its baseline, in ems (`hhea.ascent`)."""
        return _ASCENTS[self]

    @property
    def is_mono(self) -> bool:
        """Whether all characters are equally wide."""
        return "Mono" in self.value

    @property
    def bold(self) -> Typeface:
        """The bundled bold face of the same design; itself if it is bold or there is none."""
        return _BOLD.get(self, self)

    def width(self, text: str) -> float:
        """Return the width of `text` in ems, without kerning."""
        return sum(map(advances(self).__getitem__, text))


_ASCENTS = {
    Typeface.DEJAVU_SANS_MONO: 0.928,
    Typeface.DEJAVU_SANS_MONO_BOLD: 0.928,
    Typeface.DEJAVU_SANS: 0.928,
    Typeface.LIBERATION_MONO: 0.833,
    Typeface.LIBERATION_MONO_BOLD: 0.833,
    Typeface.LIBERATION_SANS: 0.905,
}
_BOLD = {
    Typeface.DEJAVU_SANS_MONO: Typeface.DEJAVU_SANS_MONO_BOLD,
    Typeface.LIBERATION_MONO: Typeface.LIBERATION_MONO_BOLD,
}


@cache
def advances(typeface: Typeface) -> dict[str, float]:
    """Return the width in ems of each of `CHARACTERS`, as the font file has it."""
    font = font_of(typeface, _UNITS_PER_EM)
    return {character: font.getlength(character) / _UNITS_PER_EM for character in CHARACTERS}


def font_of(typeface: Typeface, size: float) -> ImageFont.FreeTypeFont:
    """Open the font at `size` pixels an em."""
    # Basic layout needs no optional library, so every build of Pillow draws the same.
    return ImageFont.truetype(typeface.path, size, layout_engine=ImageFont.Layout.BASIC)
