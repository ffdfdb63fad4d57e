from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from pipeline.models.token_bytes import is_byte_level, token_bytes


def test_every_byte_has_its_name() -> None:
    names = pre_tokenizers.ByteLevel.alphabet()
    assert sorted(token_bytes(name) for name in names) == [bytes([i]) for i in range(256)]
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for text in ("a b", "é€£", "\n\t\x00", "日本"):
        ((name, _),) = pieces.pre_tokenize_str(text)
        assert token_bytes(name) == text.encode()


def test_an_added_token_is_its_own_text() -> None:
    assert token_bytes("€") == "€".encode()
    assert token_bytes('{"a b":') == b'{"a b":'


def test_the_kind_is_told_by_the_decoder() -> None:
    tokenizer = Tokenizer(models.BPE())
    assert not is_byte_level(tokenizer.to_str())
    tokenizer.decoder = decoders.Fuse()
    assert not is_byte_level(tokenizer.to_str())
    tokenizer.decoder = decoders.ByteLevel()
    assert is_byte_level(tokenizer.to_str())
