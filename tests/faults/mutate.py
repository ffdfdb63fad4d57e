"""Mutators: bytes in, other bytes out, by a seeded source of chance."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from random import Random

Mutator = Callable[[Random, bytes, bytes], bytes]
"""Takes chance, a seed file and another one to take pieces of."""


def _flip_bits(chance: Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _span(chance: Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data))
    return start, min(len(data), start + int(2 ** chance.uniform(0, 11)))


def _overwrite(chance: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(chance, data)
    fill = chance.choice((chance.randbytes(end - start), b"\0", b"\xff", b"9", b" "))
    return data[:start] + (fill * (end - start))[: end - start] + data[end:]


def _integers(chance: Random, data: bytes, other: bytes) -> bytes:
    """Lengths, sizes and offsets of binary formats."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 4))):
        value = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1))
        packed = struct.pack(chance.choice(("<I", ">I")), value)[chance.choice((0, 0, 2)) :]
        start = chance.randrange(min(len(data), chance.choice((64, 512, 1 << 30))))
        changed[start : start + len(packed)] = packed
    return bytes(changed)


def _delete(chance: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(chance, data)
    return data[:start] + data[end:]


def _duplicate(chance: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(chance, data)
    times = chance.choice((1, 1, 2, 30))
    return data[:end] + data[start:end] * times + data[end:]


def _swap(chance: Random, data: bytes, other: bytes) -> bytes:
    start, end = _span(chance, data)
    there, until = _span(chance, other)
    return data[:start] + other[there:until] + data[end:]


def _truncate(chance: Random, data: bytes, other: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _concatenate(chance: Random, data: bytes, other: bytes) -> bytes:
    return data + other


def _move_header(chance: Random, data: bytes, other: bytes) -> bytes:
    junk = chance.choice((chance.randbytes(chance.randrange(2000)), b"\n" * 900, b"<html>", b"\0"))
    return junk + data


BYTES: Mapping[str, Mutator] = {
    "flip bits": _flip_bits,
    "overwrite": _overwrite,
    "integers": _integers,
    "delete": _delete,
    "duplicate": _duplicate,
    "swap": _swap,
    "truncate": _truncate,
    "concatenate": _concatenate,
    "move header": _move_header,
}

_NUMBER = re.compile(rb"(?<![\w#.+-])[+-]?\d*\.?\d+(?![\w#])")
_NUMBERS = (
    *(b"0", b"-1", b"1", b"65535", b"65536", b"2147483647", b"2147483648", b"-2147483648"),
    *(b"4294967295", b"99999999999999999999", b"1e9", b"-1e9", b"1e400", b"nan", b"inf", b"-0"),
    *(b"0.0000001", b"3.4028235e38", b"340282350000000000000000000000000000000.0", b".", b"--5"),
    *(
        b"9" * 300,
        b"0." + b"0" * 300 + b"1",
        b"null",
        b"true",
        b"(x)",
        b"[1 2]",
        b"<< >>",
        b"1 0 R",
    ),
)
_NAME = re.compile(rb"/[A-Za-z][A-Za-z0-9]*")
_NAMES = (
    *(b"/Type", b"/Page", b"/Pages", b"/Kids", b"/Count", b"/Parent", b"/Contents", b"/Resources"),
    *(b"/Font", b"/XObject", b"/Form", b"/Image", b"/Pattern", b"/Shading", b"/ExtGState"),
    *(b"/Filter", b"/FlateDecode", b"/DCTDecode", b"/JPXDecode", b"/JBIG2Decode", b"/LZWDecode"),
    *(b"/CCITTFaxDecode", b"/RunLengthDecode", b"/ASCII85Decode", b"/ASCIIHexDecode", b"/Crypt"),
    *(b"/DecodeParms", b"/Predictor", b"/Columns", b"/Colors", b"/BitsPerComponent", b"/Width"),
    *(b"/Height", b"/ColorSpace", b"/Indexed", b"/ICCBased", b"/Separation", b"/DeviceN", b"/Lab"),
    *(b"/DeviceCMYK", b"/SMask", b"/Mask", b"/Matte", b"/Decode", b"/Function", b"/FunctionType"),
    *(b"/Domain", b"/Range", b"/Encode", b"/Size", b"/Order", b"/Length", b"/Type0", b"/Type3"),
    *(b"/CIDFontType2", b"/Widths", b"/FontFile2", b"/ToUnicode", b"/Encoding", b"/Differences"),
    *(b"/MediaBox", b"/CropBox", b"/Rotate", b"/UserUnit", b"/Annots", b"/AcroForm", b"/Fields"),
    *(b"/XFA", b"/OpenAction", b"/AA", b"/JS", b"/Names", b"/Dests", b"/Outlines", b"/Prev"),
    *(b"/Root", b"/Encrypt", b"/ID", b"/XRefStm", b"/ObjStm", b"/First", b"/N", b"/Extends", b"/W"),
)
_VALUES = (
    *_NUMBERS,
    *_NAMES[:8],
    *(b"2 0 R", b"3 0 R", b"4 0 R", b"99 0 R", b"[0 0 R]", b"[/FlateDecode /FlateDecode]"),
    *(b"[3 0 R 3 0 R]", b"<< /Type /Catalog /Pages 2 0 R >>", b"(\xfe\xff\xd8\x00)", b"<FF>"),
)
_REFERENCE = re.compile(rb"\b\d+ 0 R\b")
_STREAM = re.compile(rb"stream\r?\n(.*?)\r?\n?endstream", re.DOTALL)
_OPERATORS = (
    b"q Q cm w J j M d ri i gs m l c v y h re S s f F f* B B* b b* n W W* BT ET Tc Tw Tz TL Tf Tr "
    b"Ts Td TD Tm T* Tj TJ ' \" d0 d1 CS cs SC SCN sc scn G g RG rg K k sh BI ID EI Do MP DP BMC "
    b"BDC EMC BX EX"
).split()


def _some(
    pattern: re.Pattern[bytes], others: Sequence[bytes]
) -> Callable[[Random, bytes, bytes], bytes]:
    def mutate(chance: Random, data: bytes, other: bytes) -> bytes:
        found = list(pattern.finditer(data))
        for match in sorted(
            chance.sample(found, min(len(found), chance.choice((1, 1, 2, 5)))),
            key=lambda match: -match.start(),
        ):
            data = data[: match.start()] + chance.choice(others) + data[match.end() :]
        return data

    return mutate


def _splice_keys(chance: Random, data: bytes, other: bytes) -> bytes:
    found = [match.end() for match in re.finditer(rb"<<", data)]
    for at in sorted(chance.sample(found, min(len(found), 3)), reverse=True):
        pair = b" " + chance.choice(_NAMES) + b" " + chance.choice(_VALUES) + b" "
        data = data[:at] + pair + data[at:]
    return data


def operators(chance: Random) -> bytes:
    """A content stream of random operators with random operands."""
    words: list[bytes] = []
    for _ in range(chance.choice((5, 50, 500))):
        for _ in range(chance.randrange(7)):
            kind = chance.random()
            if kind < 0.6:
                words.append(b"%g" % chance.uniform(-300, 300))
            else:
                words.append(chance.choice((*_NUMBERS, b"/F1", b"/F", b"/I", b"/P", b"(text)")))
        words.append(chance.choice(_OPERATORS))
    return b" ".join(words)


def _restream(chance: Random, data: bytes, other: bytes) -> bytes:
    """Change what is inside a stream: of operators if it seems to be one, else of bytes."""
    found = list(_STREAM.finditer(data))
    if not found:
        return _overwrite(chance, data, other)
    match = chance.choice(found)
    inside = match[1]
    try:
        inside, deflated = zlib.decompress(inside), True
    except zlib.error:
        deflated = False
    if chance.random() < 0.5 or not inside:
        inside = operators(chance)
    else:
        mutators = (_flip_bits, _duplicate, _some(_NUMBER, _NUMBERS), _delete)
        inside = chance.choice(mutators)(chance, inside, other)
    packed = zlib.compress(inside) if deflated else inside
    return data[: match.start(1)] + packed + data[match.end(1) :]


def _several(chance: Random, data: bytes, other: bytes) -> bytes:
    for _ in range(chance.randint(2, 6)):
        data = chance.choice(list(PDF.values())[:-1])(chance, data, other) or b"%PDF-"
    return data


PDF: Mapping[str, Mutator] = {
    "numbers": _some(_NUMBER, _NUMBERS),
    "names": _some(_NAME, _NAMES),
    "references": _some(_REFERENCE, (b"1 0 R", b"2 0 R", b"3 0 R", b"4 0 R", b"5 0 R", b"6 0 R")),
    "splice keys": _splice_keys,
    "streams": _restream,
    "several": _several,
}

_SNIPPETS = (
    *(
        "!!int ''",
        "!!bool x",
        "!!timestamp x",
        "!!binary x",
        "!!python/name:os.system ",
        "&a ",
        "*a",
    ),
    *(
        "<<: ",
        "? ",
        "- ",
        ": ",
        "[",
        "{",
        "}",
        "]",
        "|\n",
        ">\n",
        "'",
        '"',
        "\t",
        "\n",
        "#",
        "%YAML 9",
    ),
    *(
        "---\n",
        "...\n",
        "null",
        "~",
        ".nan",
        "-.inf",
        "1e999",
        "9" * 50,
        "0x" + "f" * 4000,
        "\u202e",
    ),
    *(
        "1:2:3",
        "2024-01-31",
        "yes",
        "true",
        '"\\ud800"',
        '"\\x1b[31m"',
        "\\",
        "\x00",
        "\x1b[2J",
        "\ud800",
    ),
    *("é" * 100, "[" * 200, "{a: " * 100, "k" * 3000, "NaN", "Infinity", "-", "1e-999999999"),
    *(
        "1e999999999",
        "1E+999999999999999999999",
        "\\u0000",
        "\\ud800",
        '"a": 1,',
        "null,",
        "[1, [2]]",
    ),
)


def text_mutate(chance: Random, text: str, pool: Sequence[str]) -> tuple[str, str]:
    """Change a text in one of some ways; returns the way's name too. `pool` has more snippets."""
    way = chance.choice(("insert", "insert", "replace", "delete", "repeat", "lines", "value"))
    snippets = (*_SNIPPETS, *pool)
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = chance.randrange(len(text) + 1)
        end = min(len(text), start + chance.choice((1, 2, 5, 20)))
        match way:
            case "insert":
                text = text[:start] + chance.choice(snippets) + text[start:]
            case "replace":
                text = text[:start] + chance.choice(snippets) + text[end:]
            case "delete":
                text = text[:start] + text[end:]
            case "repeat":
                text = text[:end] + text[start:end] * chance.choice((1, 3, 200)) + text[end:]
            case "lines":
                lines = text.split("\n")
                chance.shuffle(lines)
                text = "\n".join(lines)
            case "value":
                found = list(re.finditer(r"(?<=[:,\[] )[^\n,\]}]+", text))
                if found:
                    match = chance.choice(found)
                    text = text[: match.start()] + chance.choice(snippets) + text[match.end() :]
    return way, text
