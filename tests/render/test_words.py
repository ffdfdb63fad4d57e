from __future__ import annotations

import numpy as np
import pytest

TEXT = b"BT /F1 24 Tf 130 140 Td (Invoice No.) Tj 0 -40 Td (1,234.56) Tj ET"


def dark_in(image, word) -> int:
    top, bottom = int(np.floor(word.top)), int(np.ceil(word.bottom))
    left, right = int(np.floor(word.left)), int(np.ceil(word.right))
    return int((image[top:bottom, left:right] < 128).sum())


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [b"", b"/CropBox [110 70 310 180]"])
def test_boxes_hold_the_ink_whatever_the_rotation_and_crop(renderer, pdf_of, rotation, crop):
    entries = b"/MediaBox [50 20 350 220] %s /Rotate %d" % (crop, rotation)
    renderer.open(pdf_of((entries, TEXT)))
    page = renderer.draw(1)
    assert page.rotation == rotation
    assert {word.text for word in page.words} == {"Invoice", "No.", "1,234.56"}
    inks = [dark_in(page.image, word) for word in page.words]
    assert min(inks) > 20
    # All the ink of the page is in the boxes, up to pixels on their edges.
    assert sum(inks) >= 0.98 * (page.image < 128).sum()
    tall = rotation in (90, 270)
    for word in page.words:
        assert (word.bottom - word.top > word.right - word.left) is tall


def test_words_outside_the_crop_are_left_out(renderer, pdf_of):
    renderer.open(pdf_of((b"/MediaBox [0 0 400 400] /CropBox [100 125 400 400]", TEXT)))
    assert [word.text for word in renderer.draw(1).words] == ["Invoice", "No."]


def test_a_word_broken_at_the_line_end_has_a_box_a_line(renderer, pdf_of):
    content = b"BT /F1 24 Tf 20 140 Td (an exam-) Tj 0 -40 Td (ple here) Tj ET"
    renderer.open(pdf_of((b"/MediaBox [0 0 200 200]", content)))
    words = renderer.draw(1).words
    assert [word.text for word in words] == ["an", "exam-", "ple", "here"]
    assert all(word.bottom - word.top < 60 for word in words)


def test_text_is_storable_whatever_the_font_says(renderer, pdf_of):
    # ToUnicode maps A to a lone surrogate, B to a pair (U+1F600), C to a control character.
    cmap = (
        b"/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <00> <ff> "
        b"endcodespacerange 3 beginbfchar <41> <D800> <42> <D83DDE00> <43> <0007> endbfchar "
        b"endcmap end"
    )
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /ToUnicode 5 0 R >>"
    unicode = b"<< /Length %d >>\nstream\n%s\nendstream" % (len(cmap), cmap)
    entries = b"/MediaBox [0 0 200 200] /Resources << /Font << /F1 4 0 R >> >>"
    content = b"BT /F1 24 Tf 20 140 Td (xAx BB yCy z) Tj ET"
    renderer.open(pdf_of((entries, content), extra=(font, unicode)))
    words = renderer.draw(1).words
    assert words[-1].text == "z"
    for word in words:
        word.text.encode("utf-8")
        assert word.text.isprintable()
