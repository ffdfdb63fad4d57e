from __future__ import annotations

import json

import pytest

from pipeline.pretrain.tracing import NOWHERE, traced_page, traced_record
from pipeline.synth.document import SynthPage, make_document
from pipeline.synth.words import Split

PAGES = [make_document(f"traced {i}", Split.TRAIN).pages[0] for i in range(120)]


def test_the_answers_are_the_record_and_the_text() -> None:
    for page in PAGES:
        assert traced_record(page.receipt, page.layout.glyphs()).text == page.receipt.to_json()
        assert json.loads(traced_page(page.layout).text) == {"text": page.layout.text}


def test_every_character_of_the_text_is_traced_to_itself() -> None:
    for page in PAGES:
        traced, glyphs = traced_page(page.layout), page.layout.glyphs()
        told = [
            (character, glyphs[source].char)
            for character, source in zip(traced.text, traced.sources, strict=True)
            if source != NOWHERE
        ]
        assert len(told) >= len(glyphs)
        assert all(written == printed or written == "\\" for written, printed in told)


@pytest.mark.parametrize("page", PAGES, ids=range(len(PAGES)))
def test_a_record_is_traced_to_what_is_printed(page: SynthPage) -> None:
    glyphs = page.layout.glyphs()
    traced = traced_record(page.receipt, glyphs)
    start = traced.text.index('"items"')
    names = [item.name for item in page.receipt.items]
    for name in (page.receipt.merchant, *names):
        at = traced.text.index(json.dumps(name)) + 1
        sources = traced.sources[at : at + len(name)]
        assert "".join(glyphs[source].char for source in sources) == name
    digits = [
        (character, glyphs[source].char)
        for character, source in zip(traced.text[start:], traced.sources[start:], strict=True)
        if character.isdigit() and source != NOWHERE and glyphs[source].char.isdigit()
    ]
    assert all(written == printed for written, printed in digits)
    amounts = "".join(f"{item.price}" for item in page.receipt.items) + f"{page.receipt.total}"
    assert len(digits) >= sum(character.isdigit() for character in amounts)


def test_a_currency_and_a_date_are_traced() -> None:
    for page in PAGES:
        glyphs = page.layout.glyphs()
        traced = traced_record(page.receipt, glyphs)
        at = traced.text.index('"currency":"') + len('"currency":"')
        assert glyphs[traced.sources[at]].field == "currency"
        date = traced.text.index('"date":"') + len('"date":"')
        fields = [
            glyphs[source].field if source != NOWHERE else ""
            for source in traced.sources[date : date + 10]
        ]
        assert fields[2:4] == ["date.year"] * 2
        assert fields[6] == "date.month"
        assert fields[9] == "date.day"


def test_a_months_name_is_traced_to_the_letters_that_tell_it() -> None:
    found = set()
    for page in PAGES:
        glyphs = page.layout.glyphs()
        traced = traced_record(page.receipt, glyphs)
        month = traced.text.index('"date":"') + len('"date":"2000-')
        shown = [glyphs[source] for source in traced.sources[month : month + 2]]
        if shown[0].char.isalpha():
            assert [glyph.offset for glyph in shown] == [1, 2]
            found.add((page.receipt.date.month, "".join(glyph.char.lower() for glyph in shown)))
    assert len(found) > 6
    assert len({letters for _, letters in found}) == len(found)
