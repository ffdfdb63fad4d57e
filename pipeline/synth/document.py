"""Documents: a seed -> a receipt or invoice on one page or more, laid out and with its look."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pipeline.synth.draw import Look, choose_look
from pipeline.synth.invoice import invoice_lines
from pipeline.synth.layout import Layout
from pipeline.synth.place import DoesNotFitError, choose_setting, place
from pipeline.synth.receipt import Receipt, invent_receipt
from pipeline.synth.till import till_lines
from pipeline.synth.words import Split

_ITEMS_PER_PAGE = 3
_INVOICE_SHARE = 0.25
_ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class SynthPage:
    """One page; its `receipt` is what the page states by itself."""

    receipt: Receipt
    layout: Layout
    look: Look


@dataclass(frozen=True, slots=True)
class SynthDocument:
    """A document; its `receipt` has the items of all the pages."""

    receipt: Receipt
    pages: tuple[SynthPage, ...]


def make_document(seed: str, split: Split, n_pages: int = 1) -> SynthDocument:
    """Return the document of `seed`: the same on every machine, words and values of `split` only.

    On several pages it is one receipt continued: every page repeats merchant, date, currency and
    the total of the whole, above items of its own.
    """
    rng = random.Random(f"receipt {seed}")
    if n_pages == 1:
        receipt = invent_receipt(rng, split)
        parts: tuple[Receipt, ...] = (receipt,)
    else:
        n_items = _ITEMS_PER_PAGE * (n_pages - 1) + rng.randint(1, _ITEMS_PER_PAGE)
        receipt = invent_receipt(rng, split, n_items)
        parts = receipt.pages(_ITEMS_PER_PAGE)
    layouts = _lay_out(seed, parts, split)
    looks = (choose_look(random.Random(f"look {seed} {number}")) for number in range(len(parts)))
    return SynthDocument(receipt, tuple(map(SynthPage, parts, layouts, looks)))


def _lay_out(seed: str, parts: tuple[Receipt, ...], split: Split) -> list[Layout]:
    """Lay out all the parts alike, in the first of a row of styles that suits them all."""
    for attempt in range(_ATTEMPTS):
        style = f"layout {seed} {attempt}"
        try:
            return [lay_out(random.Random(style), part, split) for part in parts]
        except DoesNotFitError:
            continue
    raise DoesNotFitError(f"no style in {_ATTEMPTS} suits the document of seed {seed!r}")


def lay_out(rng: random.Random, receipt: Receipt, split: Split) -> Layout:
    """Compose and place one page. Raises DoesNotFitError if the page overflows."""
    compose = invoice_lines if rng.random() < _INVOICE_SHARE else till_lines
    setting = choose_setting(rng)
    return place(rng, setting, compose(rng, receipt, split))
