"""What a row makes of the model's choices, under a grammar over bytes."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.engine.choose import best_allowed
from pipeline.engine.grammar import Grammar, Masks
from pipeline.engine.request import Request
from pipeline.engine.row import Row
from pipeline.models.base import Vocabulary
from pipeline.models.fake import FakeModel
from pipeline.models.stepping import PromptTokens
from pipeline.records import FinishReason

TILES = ((np.zeros((2, 3, 1), np.uint8),),)
VOCABULARY = FakeModel().vocabulary
(STOP,) = VOCABULARY.stop_ids
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name", "tags"],
    "additionalProperties": False,
}


def row(schema: dict[str, Any] | None = SCHEMA, limit: int = 200) -> Row:
    grammar = None if schema is None else Grammar(schema, VOCABULARY, compact=True)
    return Row(
        request=Request("", TILES, limit, grammar),
        future=Future(),
        prompt=PromptTokens((1, 2, 3), (False, True, False)),
        grammar=grammar.start() if grammar else None,
        drafter=None,
        stop_ids=frozenset(VOCABULARY.stop_ids),
        submitted=0.0,
        cached=3,
    )


def text(one: Row) -> str:
    return bytes(one.ids).decode()


def say(one: Row, what: str) -> None:
    """Choose the bytes of `what` one a step, without guesses."""
    for byte in what.encode():
        one.draft = []
        one.take([byte], [-0.25])


def test_what_the_grammar_forces_costs_no_pass() -> None:
    one = row()
    one.begin()
    assert text(one) == '{"name":"'
    assert one.pending == list(b'{"name":"')
    assert (one.passes, one.forced) == (0, 9)
    say(one, 'Abc"')
    assert text(one) == '{"name":"Abc","tags":['
    assert one.pending == list(b'","tags":[')
    assert one.cached == 3 + len(b'{"name":"Abc')
    assert (one.passes, one.forced) == (4, 9 + 9)
    assert one.logprobs == [0.0] * 9 + [-0.25] * 4 + [0.0] * 9
    say(one, "]")
    assert one.finish is FinishReason.STOP
    assert json.loads(text(one)) == {"name": "Abc", "tags": []}


def test_guesses_count_up_to_where_the_model_chooses_otherwise() -> None:
    one = row()
    one.begin()
    one.draft = list(b"Abcd")
    one.take(list(b"Abx?!"), [-1.0, -2.0, -3.0, -4.0, -5.0])
    assert text(one) == '{"name":"Abx'
    assert one.pending == list(b"x")
    assert one.cached == 3 + len(b'{"name":"Ab')
    assert (one.drafted, one.passes) == (2, 1)
    assert one.logprobs[-3:] == [-1.0, -2.0, -3.0]


def test_a_guess_that_is_all_right_brings_one_token_more() -> None:
    one = row()
    one.begin()
    one.draft = list(b"Ab")
    one.take(list(b"Abc"), [-1.0, -2.0, -3.0])
    assert text(one) == '{"name":"Abc'
    assert one.pending == list(b"c")
    assert (one.drafted, one.passes) == (2, 1)


def test_masks_say_what_may_follow_a_draft_and_asking_changes_nothing() -> None:
    one, free = row(), row(None)
    one.begin()
    one.draft, free.draft = [*b'A"', *b"x"], [7]
    masks = Masks(len(VOCABULARY.tokens), never=[65], threads=1)
    asked = [(one.grammar, one.draft), (free.grammar, free.draft), (row().grammar, [])]
    for _ in range(2):
        packed = masks.packed(asked)
        bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : len(VOCABULARY.tokens)]
        # The draft breaks off at its x: nothing is said of what comes behind.
        assert len(bits) == 4 + 2 + 1
        assert bits[0, 65]
        assert bits[1, ord('"')]
        assert np.flatnonzero(bits[2]).tolist() == [ord(",")]
        assert bits[4:6].sum() == 2 * (len(VOCABULARY.tokens) - 1)
        assert not bits[4:6, 65].any()
        assert np.flatnonzero(bits[6]).tolist() == [ord("{")]
    one.take(list(b'A",?'), [0.0, 0.0, 0.0, 0.0])
    assert text(one) == '{"name":"A","tags":['


def test_a_guess_reaches_across_what_the_grammar_forces() -> None:
    one = row()
    one.begin()
    one.draft = list(b'A","tags":[]')
    chosen = list(b'A"?????????]?')
    one.take(chosen, [-1.0] * len(chosen))
    assert text(one) == '{"name":"A","tags":[]}'
    assert one.finish is FinishReason.STOP
    assert (one.passes, one.forced, one.drafted) == (1, 9 + 9 + 1, 2)


def test_a_stop_token_ends_a_free_answer() -> None:
    one = row(None)
    one.begin()
    one.take([65], [-1.0])
    one.take([STOP], [-1.0])
    assert (text(one), one.finish) == ("A", FinishReason.STOP)


def test_a_free_answer_is_cut_at_the_limit() -> None:
    one = row(None, limit=2)
    say(one, "AB")
    assert (text(one), one.finish) == ("AB", FinishReason.LENGTH)


@pytest.mark.parametrize("what", ["x" * 200, 'Ab""' + 'many",' * 40])
def test_an_answer_that_would_be_cut_is_closed_and_still_counts_as_cut(what: str) -> None:
    one = row(limit=100)
    one.begin()
    for byte in what.encode():
        if one.finish is not None:
            break
        say(one, chr(byte))
    assert one.finish is FinishReason.LENGTH
    assert len(one.ids) <= 100
    assert len(one.ids) > 70
    assert len(one.ids) == len(one.logprobs)
    json.loads(text(one))


def test_no_way_to_close_is_no_failure() -> None:
    letters = b'{}[]":,abcdefghijklmnopqrstuvwxyz '
    tokens = (*(bytes([byte]) for byte in letters), b"")
    stop = len(tokens) - 1
    vocabulary = Vocabulary(tokens, special_ids=(stop,), stop_ids=(stop,))
    schema = {
        "type": "object",
        "properties": {"note": {"type": "string"}, "size": {"enum": ["XL", "XXL"]}},
        "required": ["note", "size"],
        "additionalProperties": False,
    }
    grammar = Grammar(schema, vocabulary, compact=True).start()
    for byte in b'{"note":"abc':
        grammar.accept(letters.index(byte))
    assert grammar.closing(100) is None


def test_the_best_token_is_the_one_with_the_highest_score_however_near_another_is() -> None:
    logits = torch.full((1, 64), 0.05)
    logits[0, 40] = torch.nextafter(torch.tensor(0.05), torch.tensor(1.0))
    everything = np.full((1, 8), 255, np.uint8)
    (token,), (logprob,) = best_allowed(logits, everything, 64)
    assert token == 40
    assert logprob == pytest.approx(-math.log(64))
