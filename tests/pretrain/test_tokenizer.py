from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.pretrain.tokenizer import FRAGMENTS, SPECIAL, build_tokenizer

TOKENIZER = build_tokenizer(2048)


def ids_of(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_written(text: str) -> None:
    if not any(special in text for special in SPECIAL):
        assert TOKENIZER.decode(ids_of(text)) == text


def test_every_id_is_a_token_and_every_byte_has_one() -> None:
    names = TOKENIZER.convert_ids_to_tokens(range(len(TOKENIZER)))
    assert None not in names
    assert len(set(names)) == len(TOKENIZER) == len(SPECIAL) + len(FRAGMENTS) + 256


def test_a_receipt_costs_a_token_a_character_and_one_a_fragment() -> None:
    record = (
        '{"merchant":"Ab","date":"2020-01-02","items":[{"name":"x","qty":1,"price":2.30},'
        '{"name":"y","qty":1,"price":0.10}],"total":2.40,"currency":"EUR"}'
    )
    fragments = 1 + 1 + 1 + 2 + 1 + 2 + 1 + 1
    characters = len("Ab") + len("2020-01-02") + 2 + 2 + len("2.30") + len("0.10") + len("2.40")
    assert len(ids_of(record)) == fragments + characters


def test_special_tokens_are_never_text() -> None:
    assert ids_of("<image>") == [TOKENIZER.convert_tokens_to_ids("<image>")]
    assert TOKENIZER.decode(ids_of("a<image>b"), skip_special_tokens=True) == "ab"
