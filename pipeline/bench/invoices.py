"""Records of made invoices, and what a grammar spares a model that writes them."""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from pipeline.engine.grammar import Grammar
from pipeline.models.base import Vocabulary
from pipeline.schema import load_schema
from pipeline.synth.receipt import Item, Receipt, invent_receipt
from pipeline.synth.words import Split, made_up_word

SCHEMA_ID = "invoice.v1"


@dataclass(frozen=True, slots=True)
class Replay:
    """How an answer is written under a grammar, without guesses.

    Of its `tokens` the grammar leaves `forced` no choice; the model is asked `passes` times, the
    stop token included where it has to be chosen.
    """

    tokens: int
    forced: int
    passes: int


@dataclass(frozen=True, slots=True)
class GrammarFigures:
    """Means over the records of `invoices` made invoices, written by one tokenizer."""

    schema: str
    vocabulary: int
    invoices: int
    tokens_a_page: float
    passes_a_page: float
    forced_share: float
    passes_per_token: float


def replay(grammar: Grammar, ids: Sequence[int]) -> Replay:
    """Let a model that is always right write `ids`.

    Raises
    ------
    ValueError
        If the grammar does not allow them, or forces other tokens of the same text.
    """
    state = grammar.start()
    forced = passes = 0
    rest = list(ids)
    while rest:
        must = state.forced()
        if must and rest[: len(must)] != must:
            raise ValueError(f"{len(rest)} tokens before the end {must} is forced, not {rest[:8]}")
        forced += len(must)
        passes += not must
        taken = must or rest[:1]
        for token in taken:
            state.accept(token)
        del rest[: len(taken)]
    return Replay(len(ids), forced, passes + (not state.forced()))


def replay_invoices(vocabulary: Vocabulary, count: int, seed: int) -> GrammarFigures:
    """Replay the records of `count` made invoices, with the tokens of the vocabulary's `backend`.

    Raises
    ------
    ValueError
        If the vocabulary has no backend.
    """
    if vocabulary.backend is None:
        raise ValueError("the tokenizer cannot be read")
    tokenizer = Tokenizer.from_str(vocabulary.backend)
    grammar = Grammar(load_schema(SCHEMA_ID).document, vocabulary)
    replays = [
        replay(grammar, tokenizer.encode(text, add_special_tokens=False).ids)
        for text in (invoice_json(f"invoice {seed}/{number}") for number in range(count))
    ]
    tokens, passes = (sum(getattr(one, name) for one in replays) for name in ("tokens", "passes"))
    return GrammarFigures(
        schema=SCHEMA_ID,
        vocabulary=tokenizer.get_vocab_size(),
        invoices=count,
        tokens_a_page=tokens / count,
        passes_a_page=passes / count,
        forced_share=sum(one.forced for one in replays) / tokens,
        passes_per_token=passes / tokens,
    )


def invoice_json(seed: str, split: Split = Split.TEST) -> str:
    """Return a record of schema `invoice.v1`: what an invoice says whose every part is filled in.

    Names, items, amounts and dates are those of a made receipt; words are of `split`.
    """
    rng = random.Random(seed)
    receipt = invent_receipt(rng, split)
    due = receipt.date + datetime.timedelta(rng.choice((7, 14, 30)))
    record = {
        "invoice_number": f"INV-{rng.randint(1, 99999):05d}",
        "issue_date": receipt.date.isoformat(),
        "due_date": due.isoformat(),
        "purchase_order": rng.choice((None, f"PO-{rng.randint(1, 9999):04d}")),
        "currency": receipt.currency,
        "vendor": _vendor(rng, split, receipt.merchant),
        "customer": {
            "name": _name(rng, split),
            "address": _address(rng, split),
            "tax_id": rng.choice((None, _digits(rng, 9))),
        },
        "lines": [_line(receipt, item) for item in receipt.items],
        **_sums(receipt),
        "payment_terms": rng.choice((None, "Payable in 30 days", "14 days net")),
    }
    return json.dumps(record, ensure_ascii=False)


def _vendor(rng: random.Random, split: Split, name: str) -> dict[str, Any]:
    mailbox = made_up_word(rng, split, 3, 8)
    return {
        "name": name,
        "address": _address(rng, split),
        "tax_id": _digits(rng, 9),
        "email": f"{mailbox}@{made_up_word(rng, split, 3, 9)}.com",
        "phone": f"+{_digits(rng, 2)} {_digits(rng, 3)} {_digits(rng, 6)}",
        "iban": f"DE{_digits(rng, 20)}",
    }


def _address(rng: random.Random, split: Split) -> dict[str, Any]:
    return {
        "street": f"{rng.randint(1, 199)} {_name(rng, split)} Street",
        "postal_code": _digits(rng, 5),
        "city": _name(rng, split),
        "region": rng.choice((None, _name(rng, split))),
        "country": _name(rng, split),
    }


def _line(receipt: Receipt, item: Item) -> dict[str, Any]:
    return {
        "description": item.name,
        "quantity": item.qty,
        "unit": "pcs",
        "unit_price": round(float(item.price) / item.qty, 2),
        "tax_rate": receipt.tax_percent,
        "amount": float(item.price),
    }


def _sums(receipt: Receipt) -> dict[str, Any]:
    tax = receipt.added_tax or receipt.included_tax
    net, gross = float(receipt.total - tax), float(receipt.total)
    totals = {"net": net, "tax": float(tax), "gross": gross, "paid": 0, "due": gross}
    taxes = [{"rate": receipt.tax_percent, "base": net, "amount": float(tax)}]
    return {"taxes": taxes, "totals": totals}


def _name(rng: random.Random, split: Split) -> str:
    return made_up_word(rng, split, 3, 9).capitalize()


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))
