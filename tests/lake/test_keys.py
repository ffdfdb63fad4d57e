from __future__ import annotations

import random
import tracemalloc

import pyarrow as pa

from pipeline.lake.keys import (
    KeySet,
    as_array,
    column_keys,
    document_key,
    newest,
    page_key,
    text_key,
)

SHA = "0123456789abcdef" * 4


def test_keys_tell_pages_apart():
    assert len({page_key(*page) for page in [("a", 1), ("a", 2), ("a", 12), ("b", 1)]}) == 4


def test_a_set_knows_its_members():
    members = [text_key(str(number)) for number in range(1000)]
    # A digest that ends in zero bytes is a member like any other.
    members += [b"\x01" * 15 + b"\x00", b"\x00" * 16]
    found = KeySet(as_array(members))
    assert all(key in found for key in members)
    assert not any(text_key(str(number)) in found for number in range(1000, 2000))
    assert len(found) == 1002
    assert text_key("x") not in KeySet(as_array([]))
    wanted = as_array([members[0], text_key("x"), *members[-2:]])
    assert found.mask(wanted).tolist() == [True, False, True, True]
    assert KeySet(as_array([])).mask(wanted).tolist() == [False] * 4


def test_a_stream_of_keys_costs_little_more_than_its_array():
    n_keys = 50_000
    tracemalloc.start()
    try:
        keys = as_array(number.to_bytes(16, "big") for number in range(1, n_keys + 1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert keys[[0, -1]].tobytes() == b"".join(n.to_bytes(16, "big") for n in (1, n_keys))
    assert peak < 24 * n_keys


def test_the_newest_is_the_last_of_its_key():
    keys = as_array([bytes([number]) * 16 for number in (1, 2, 1, 3, 2, 1)])
    assert newest(keys).tolist() == [False, False, False, True, True, True]
    assert newest(as_array([])).tolist() == []


def test_a_doubled_member_is_counted():
    assert KeySet(as_array([b"a" * 16, b"b" * 16, b"a" * 16])).doubled() == 1


def test_a_name_that_is_not_utf8_has_a_key():
    assert text_key("/in/\udcff.pdf") == text_key("/in/\\udcff.pdf")


def test_columns_have_the_keys_of_their_rows():
    ids = [SHA, SHA[::-1], "f" * 64, "0" * 64, SHA]
    for column in (ids, [*ids, SHA.upper(), "a", "g" * 64], ["a", "é" * 32], [SHA[1:]], []):
        wanted = as_array(map(document_key, column))
        assert column_keys(pa.array(column, pa.string())).tolist() == wanted.tolist()


def test_keys_that_share_a_half_are_told_apart():
    halves = [bytes([n]) * 8 for n in range(3)]
    drawn = random.Random(1)
    keys = [drawn.choice(halves) + drawn.choice(halves) for _ in range(40)]
    last = {key: place for place, key in enumerate(keys)}
    assert newest(as_array(keys)).tolist() == [last[key] == n for n, key in enumerate(keys)]
    members, others = sorted(last)[:5], sorted(last)[5:]
    found = KeySet(as_array([*members, members[0]]))
    assert found.mask(as_array([*members, *others])).tolist() == [True] * 5 + [False] * len(others)
    assert found.doubled() == 1
