"""ANLS*: the paper's cases by hand, its laws, and agreement with the paper's own program."""

from __future__ import annotations

from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.anls import anls_grid, anls_star

quick = settings(max_examples=40, deadline=None)

words = st.text("abcdefgh", min_size=1, max_size=6)
leaves = words | st.integers(0, 200) | st.booleans()
"""Leaves on which the two programs mean the same: see docs/EVALUATION.md for the others."""

stated = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from("xyz"), inner, min_size=1)
    ),
    max_leaves=8,
)
nested = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, min_size=1)
)
anything = st.recursive(
    leaves | st.none() | st.just("") | st.decimals(0, 9, places=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("truth", "answer", "score"),
    [
        ("Hello World", "hello  world", 1.0),
        ("hello", "hella", 0.8),
        ("abcd", "abzz", 0.5),
        ("abcd", "azzz", 0.0),  # 0.25 is under one half
        (["this", "is", "a", "test"], ["a", "test", "this", "be"], 3 / 4),
        (["a", "b"], ["a", "b", "c", "d"], 2 / 4),
        ({"a": "x", "b": "y"}, {"a": "x"}, 1 / 2),
        ({"a": "x"}, {"a": "x", "b": "y"}, 1 / 2),
        ({"a": "x"}, {"a": "x", "b": None}, 1.0),
        ({"a": None}, {}, 1.0),
        ({"a": None}, {"a": ""}, 0.0),
        ({"a": []}, {"a": None}, 1.0),
        ({"a": "x"}, {"a": ["p", "q"]}, 0.0),
        ({"t": Decimal("100.00")}, {"t": 100}, 1.0),
        ({"t": Decimal("14.74")}, {"t": Decimal("14.75")}, 0.8),
        ({"i": [{"n": "ab", "p": 1}, {"n": "cd", "p": 2}]}, {"i": [{"n": "cd", "p": 2}]}, 0.5),
        ({}, {}, 1.0),
    ],
)
def test_scores_by_hand(truth: Any, answer: Any, score: float) -> None:
    assert anls_star(truth, answer) == pytest.approx(score)


@quick
@given(anything)
def test_a_value_beside_itself_scores_one(value: Any) -> None:
    assert anls_star(value, value) == pytest.approx(1)


@quick
@given(anything, anything)
def test_a_score_is_between_zero_and_one(truth: Any, answer: Any) -> None:
    assert 0 <= anls_star(truth, answer) <= 1 + 1e-12


@quick
@given(nested, nested)
def test_neither_side_is_favoured(truth: Any, answer: Any) -> None:
    # No lists: of pairings equally good, either may be taken.
    assert anls_star(truth, answer) == pytest.approx(anls_star(answer, truth))


@quick
@given(st.lists(anything, min_size=5, max_size=6), st.lists(anything, min_size=4, max_size=6))
def test_many_pairs_score_as_each_pair_does(truths: list[Any], answers: list[Any]) -> None:
    each = [anls_star(truth, answer) for truth, answer in product(truths, answers)]
    assert np.allclose(anls_grid(truths, answers).ravel(), each)


optional = st.none() | words | st.integers(0, 9)
rows = st.fixed_dictionaries({"name": optional}, optional={"price": optional, "more": st.just([])})


@quick
@given(st.lists(rows, min_size=5, max_size=6), st.lists(rows, min_size=4, max_size=6))
def test_many_rows_score_as_each_row_does(truths: list[Any], answers: list[Any]) -> None:
    each = [anls_star(truth, answer) for truth, answer in product(truths, answers)]
    assert np.allclose(anls_grid(truths, answers).ravel(), each)


@quick
@given(stated, stated)
def test_the_papers_own_program_agrees(truth: Any, answer: Any) -> None:
    theirs = pytest.importorskip("anls_star", reason="pip install anls-star to compare with it")
    both = ({"record": truth}, {"record": answer})
    assert anls_star(*both) == pytest.approx(theirs.anls_score(*both))
