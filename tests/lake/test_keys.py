from __future__ import annotations

import tracemalloc

from pipeline.lake.keys import KeySet, as_array, newest, page_key, uri_key


def test_keys_tell_pages_apart():
    keys = {page_key("a", (1,)), page_key("a", (2,)), page_key("a", (1, 2)), page_key("a", (12,))}
    assert len(keys | {page_key("b", (1,))}) == 5


def test_a_set_knows_its_members():
    members = [uri_key(str(number)) for number in range(1000)]
    # A digest that ends in zero bytes is a member like any other.
    members += [b"\x01" * 15 + b"\x00", b"\x00" * 16]
    found = KeySet(as_array(members))
    assert all(key in found for key in members)
    assert not any(uri_key(str(number)) in found for number in range(1000, 2000))
    assert len(found) == 1002
    assert uri_key("x") not in KeySet(as_array([]))
    wanted = as_array([members[0], uri_key("x"), *members[-2:]])
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
    assert keys[[0, -1]].tolist() == [number.to_bytes(16, "big") for number in (1, n_keys)]
    assert peak < 24 * n_keys


def test_the_newest_is_the_last_of_its_key():
    keys = as_array([bytes([number]) * 16 for number in (1, 2, 1, 3, 2, 1)])
    assert newest(keys).tolist() == [False, False, False, True, True, True]
    assert newest(as_array([])).tolist() == []


def test_a_doubled_member_is_counted():
    assert KeySet(as_array([b"a" * 16, b"b" * 16, b"a" * 16])).doubled() == 1


def test_a_name_that_is_not_utf8_has_a_key():
    assert uri_key("/in/\udcff.pdf") == uri_key("/in/\\udcff.pdf")
