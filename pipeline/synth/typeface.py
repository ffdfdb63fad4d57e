"""The bundled typefaces, all monospaced: a layout is arithmetic and needs no font reader."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

ADVANCE = 0.6
"""Width of every character, in ems."""

_FOLDER = Path(__file__).parent / "fonts"


class Typeface(StrEnum):
    """A font file under `fonts/`; the licences lie beside the files."""

    DEJAVU_SANS_MONO = "DejaVuSansMono.ttf"
    LIBERATION_MONO = "LiberationMono-Regular.ttf"
    LIBERATION_MONO_BOLD = "LiberationMono-Bold.ttf"

    @property
    def path(self) -> Path:
        """Where the font file lies."""
        return _FOLDER / self.value

    @property
    def ascent(self) -> float:
        """Height of the top of a line above its baseline, in ems (`hhea.ascent`)."""
        return 0.928 if self is Typeface.DEJAVU_SANS_MONO else 0.833
