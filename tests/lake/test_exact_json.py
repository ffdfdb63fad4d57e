from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.lake.exact_json import dumps, loads

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: abs(d.adjusted()) < 400)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_what_is_written_is_read_back(value):
    assert loads(dumps(value)) == value


@pytest.mark.parametrize(
    "number", ["0.10", "12345678901234567890.123456789", "-0.0", "1E+30", "9" * 400]
)
def test_numbers_keep_every_digit(number):
    assert dumps({"n": Decimal(number)}) == f'{{"n":{number}}}'
    assert str(loads(number)) == dumps(loads(number)) == number


def test_text_and_nesting_match_the_standard_library():
    value = {"é\n": [1, True, None, {"a": "\u2028"}, []]}
    assert dumps(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@pytest.mark.parametrize("value", [Decimal("NaN"), float("inf")])
def test_numbers_that_json_lacks_are_refused(value):
    with pytest.raises(ValueError, match="not a JSON number"):
        dumps([value])


def test_constants_that_json_lacks_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        loads("NaN")


@pytest.mark.parametrize("value", [{1: 2}, {"a": object()}])
def test_values_that_json_lacks_are_refused(value):
    with pytest.raises(TypeError):
        dumps(value)


@pytest.mark.parametrize("text", ["1e99999999999999999999", '{"a": [-1E+99999999999999999999]}'])
def test_a_number_past_decimal_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match="out of range"):
        loads(text)


def test_a_huge_finite_number_is_written() -> None:
    assert loads(dumps(Decimal("1E+400"))) == Decimal("1E+400")
