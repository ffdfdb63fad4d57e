"""Documents: a seed -> a receipt on one page or more, laid out and with its look."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pipeline.synth.draw import Look, choose_look
from pipeline.synth.layout import Layout, lay_out
from pipeline.synth.receipt import Receipt, invent_receipt
from pipeline.synth.words import Split

_ITEMS_PER_PAGE = 3


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
    """Return the document of `seed`: the same on every machine, its words of `split` only.

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
    pages = tuple(
        SynthPage(
            part,
            lay_out(random.Random(f"layout {seed}"), part, split),
            choose_look(random.Random(f"look {seed} {number}")),
        )
        for number, part in enumerate(parts)
    )
    return SynthDocument(receipt, pages)
