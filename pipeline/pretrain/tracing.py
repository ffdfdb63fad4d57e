"""Answers whose every character knows which printed character it is read from.

The reader is shown, while it learns, where on the page to look (`pipeline.pretrain.coach`). Here an
answer is spelled out from a document's truth, and each of its characters traced to a glyph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.synth.layout import Glyph, Layout
from pipeline.synth.receipt import Receipt

NOWHERE = -1


@dataclass(frozen=True, slots=True)
class TracedText:
    """`sources[i]` is the index of the glyph that character i is read from, or `NOWHERE`."""

    text: str
    sources: tuple[int, ...]


def traced_record(receipt: Receipt, glyphs: Sequence[Glyph]) -> TracedText:
    """Return `receipt.to_json()`, traced."""
    prints = _first_prints(glyphs)

    def value(text: str, field: str) -> _Pieces:
        return [(text, _aligned(text, prints.get(field, []), glyphs))]

    day = receipt.date
    pieces: _Pieces = [_plain('{"merchant":"'), *_escaped(value(receipt.merchant, "merchant"))]
    pieces += [_plain('","date":"'), *value(f"{day.year}", "date.year"), _plain("-")]
    pieces += [*value(f"{day.month:02d}", "date.month"), _plain("-")]
    pieces += [*value(f"{day.day:02d}", "date.day")]
    for index, item in enumerate(receipt.items):
        path = f"items.{index}"
        pieces.append(_plain('},{"name":"' if index else '","items":[{"name":"'))
        pieces += _escaped(value(item.name, f"{path}.name"))
        pieces += [_plain('","qty":'), *value(str(item.qty), f"{path}.qty")]
        pieces += [_plain(',"price":'), *value(f"{item.price:.2f}", f"{path}.price")]
    pieces += [_plain('}],"total":'), *value(f"{receipt.total:.2f}", "total")]
    pieces += [_plain(',"currency":"'), *value(receipt.currency, "currency"), _plain('"}')]
    return _joined(pieces)


def traced_page(layout: Layout) -> TracedText:
    """Return the page's text as a record of `text.v1`, traced."""
    glyphs = layout.glyphs()
    sources, following = [], 0
    for character in layout.text:
        # What is no glyph stands between runs or lines.
        printed = following < len(glyphs) and glyphs[following].char == character
        sources.append(following if printed else NOWHERE)
        following += printed
    if following != len(glyphs):
        raise ValueError("the layout's text and glyphs do not agree")
    body = _escaped([(layout.text, tuple(sources))])
    return _joined([_plain('{"text":"'), *body, _plain('"}')])


_Pieces = list[tuple[str, tuple[int, ...]]]


def _plain(text: str) -> tuple[str, tuple[int, ...]]:
    return text, (NOWHERE,) * len(text)


def _escaped(pieces: _Pieces) -> Iterator[tuple[str, tuple[int, ...]]]:
    for text, sources in pieces:
        for character, source in zip(text, sources, strict=True):
            written = json.dumps(character, ensure_ascii=False)[1:-1]
            yield written, (source,) * len(written)


def _joined(pieces: _Pieces) -> TracedText:
    return TracedText(
        "".join(text for text, _ in pieces),
        tuple(source for _, sources in pieces for source in sources),
    )


def _first_prints(glyphs: Sequence[Glyph]) -> dict[str, list[int]]:
    """Return the glyphs of every field where it is first printed, in order."""
    found: dict[str, list[int]] = {}
    for index, glyph in enumerate(glyphs):
        if glyph.field and glyph.offset == len(found.setdefault(glyph.field, [])):
            found[glyph.field].append(index)
    return found


def _aligned(text: str, printed: Sequence[int], glyphs: Sequence[Glyph]) -> tuple[int, ...]:
    """Trace the characters of a value that may be printed another way: 1,234.50 or 24 or Mar."""
    shown = "".join(glyphs[i].char for i in printed)
    if shown == text:
        return tuple(printed)
    if not printed:
        return (NOWHERE,) * len(text)
    digits = [i for i in printed if glyphs[i].char.isdigit()]
    if not digits:  # a currency's sign; or a month's name, told by its second and third letters
        return tuple(printed[min(i + 1, len(printed) - 1)] for i in range(len(text)))
    sources, following = [], len(digits) - sum(c.isdigit() for c in text)
    marks = [i for i in printed if glyphs[i].char in ".,"]
    for character in text:
        if character.isdigit():
            sources.append(digits[following] if following >= 0 else NOWHERE)
            following += 1
        else:
            sources.append(marks[-1] if marks else NOWHERE)
    return tuple(sources)
