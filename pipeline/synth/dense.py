"""Dense pages: full of words, numbers and signs that state nothing, for training the eye."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.synth.draw import Look, choose_look
from pipeline.synth.layout import HEIGHT, WIDTH, Layout, Piece, Run
from pipeline.synth.notation import choose_date_style, choose_money, date_text
from pipeline.synth.place import MARGIN, PITCH_LEAST, Setting, choose_setting
from pipeline.synth.receipt import CURRENCY_SIGNS
from pipeline.synth.typeface import CHARACTERS
from pipeline.synth.values import made_up_amount, made_up_date
from pipeline.synth.words import Split, made_up_word

_INKED = CHARACTERS.replace(" ", "")
_SIGNS = "".join(c for c in _INKED if not c.isalnum())
_MONO_SIZES = (10.0, 10.0, 10.5, 11.0, 12.0, 13.0, 14.4)
_OTHER_SIZES = (11.0, 11.0, 12.0, 13.0, 14.4)
_PITCH_MOST = 1.5

Token = Callable[[random.Random, Split], str]


@dataclass(frozen=True, slots=True)
class DensePage:
    """A page without a record."""

    layout: Layout
    look: Look


def dense_page(seed: str, split: Split) -> DensePage:
    """Return the page of `seed`, its words, amounts and dates of `split` only."""
    rng = random.Random(f"dense {seed}")
    page, mixed = choose_setting(rng), rng.random() < 0.4
    top, runs = rng.uniform(MARGIN, MARGIN + 10), list[Run]()
    while True:
        setting = choose_setting(rng) if mixed else page
        size = rng.choice(_MONO_SIZES if setting.typeface.is_mono else _OTHER_SIZES)
        pitch = rng.uniform(PITCH_LEAST, _PITCH_MOST) * size
        if top + PITCH_LEAST * size > HEIGHT - MARGIN:
            return DensePage(Layout(tuple(runs)), choose_look(rng))
        snapped = top // setting.step * setting.step
        runs.extend(_line(rng, split, setting, snapped, size))
        top += pitch + 1  # the pixel that snapping takes


def _line(rng: random.Random, split: Split, setting: Setting, top: float, size: float) -> list[Run]:
    """Fill a line with runs, the spaces within and between them of any width."""
    typeface = setting.typeface.bold if rng.random() < 0.15 else setting.typeface
    end, x, runs = WIDTH - MARGIN, rng.uniform(MARGIN, MARGIN + 8), list[Run]()
    space = typeface.width(" ") * size
    while True:
        words = [_token(rng, split) for _ in range(rng.choice((1, 1, 2, 3)))]
        while words and x + typeface.width(" ".join(words)) * size > end:
            words.pop()
        if not words:
            return runs
        run = Run(x, top, (Piece(" ".join(words)),), size, typeface)
        runs.append(run)
        x += run.width + rng.choice((1, 1, 1.5, 2, 4)) * max(space, 0.6 * size)


def _token(rng: random.Random, split: Split) -> str:
    make = rng.choices(tuple(_TOKENS), tuple(_TOKENS.values()))[0]
    return make(rng, split)


def _word(rng: random.Random, split: Split) -> str:
    case = rng.choice((str.upper, str.capitalize, str.lower))
    return case(made_up_word(rng, split, 3, 9)) + rng.choice(("", "", "", ":", ".", ","))


def _amount(rng: random.Random, split: Split) -> str:
    money = choose_money(rng, rng.choice(tuple(CURRENCY_SIGNS)))
    amount = made_up_amount(rng, split)
    if rng.random() < 0.6:
        return money.number(amount)
    return "".join(piece.text for piece in money.total_amount(amount))


def _date(rng: random.Random, split: Split) -> str:
    return date_text(choose_date_style(rng), made_up_date(rng, split))


def _digits(rng: random.Random, _: Split) -> str:
    count = "".join(rng.choices("0123456789", k=rng.randint(1, 8)))
    return rng.choice(("", "", "#", "x", "(", "*")) + count + rng.choice(("", "", "x", "%", ")"))


def _any_letters(rng: random.Random, _: Split) -> str:
    return "".join(rng.choices(_INKED, k=rng.randint(1, 9)))


def _signs(rng: random.Random, _: Split) -> str:
    if rng.random() < 0.3:
        return rng.choice("-=*.") * rng.randint(2, 8)
    return "".join(rng.choices(_SIGNS, k=rng.randint(1, 4)))


_TOKENS: dict[Token, float] = {
    _word: 0.36,
    _amount: 0.2,
    _date: 0.1,
    _digits: 0.12,
    _any_letters: 0.16,
    _signs: 0.06,
}
