from pathlib import Path

import pytest

from pipeline.synth.typeface import CHARACTERS, Typeface, advances


@pytest.mark.parametrize("typeface", list(Typeface))
def test_arithmetic_agrees_with_the_fonts(typeface: Typeface) -> None:
    ttf = pytest.importorskip("fontTools.ttLib").TTFont(typeface.path)
    em, names = ttf["head"].unitsPerEm, ttf.getBestCmap()
    for character, width in advances(typeface).items():
        assert width == pytest.approx(ttf["hmtx"][names[ord(character)]][0] / em, abs=1e-6)
    assert ttf["hhea"].ascent / em == pytest.approx(typeface.ascent, abs=0.001)
    assert set(advances(typeface)) == set(CHARACTERS)


def test_monospaced_means_all_characters_equally_wide() -> None:
    for typeface in Typeface:
        assert (len(set(advances(typeface).values())) == 1) is typeface.is_mono


def test_every_font_is_named_in_a_licence() -> None:
    folder = Typeface.DEJAVU_SANS.path.parent
    licences = "".join(path.read_text(encoding="utf-8") for path in folder.glob("LICENSE-*.txt"))
    fonts = {path.name for path in Path(folder).glob("*.ttf")}
    assert fonts == set(Typeface)
    assert all(name in licences for name in fonts)
