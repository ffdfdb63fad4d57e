"""The bytes that a token's name stands for, in tokenizers of the byte-level kind.

Such tokenizers write every byte as a printable character (Radford et al. 2019, `bytes_to_unicode`):
those that print stand for themselves, the other 68 follow from U+0100 on, in order.
"""

from __future__ import annotations

import json

_PRINTED = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_BYTES = {chr(byte): byte for byte in _PRINTED} | {
    chr(0x100 + i): byte for i, byte in enumerate(sorted(set(range(256)) - _PRINTED))
}


def token_bytes(name: str) -> bytes:
    """Return the bytes of a token; a name with other characters is an added token's own text."""
    if all(character in _BYTES for character in name):
        return bytes(_BYTES[character] for character in name)
    return name.encode()


def is_byte_level(backend: str) -> bool:
    """Return True if the tokenizer, given as its own JSON, is of this kind."""
    decoder = json.loads(backend).get("decoder") or {}
    return bool(decoder.get("type") == "ByteLevel")
