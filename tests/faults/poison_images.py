"""Hostile images: small files that say, or hold, more pixels than any memory."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image


def png_bomb() -> bytes:
    """A PNG of 60,000 x 60,000 black pixels in 4 MB of zeros that deflate again, header true."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    side = 60_000
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def png_text_bomb() -> bytes:
    """A PNG whose comment inflates to 256 MiB."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    head, tail = file.getvalue()[:33], file.getvalue()[33:]
    data = b"zTXtComment\0\0" + zlib.compress(bytes(256 << 20), 1)
    comment = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return head + comment + tail


def jpeg_bomb() -> bytes:
    """A JPEG of 64 pixels whose header says 65,500 x 65,500."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG")
    content = bytearray(file.getvalue())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content)


def _tiff(side: int, next_frame: int) -> bytes:
    entries = [(256, side), (257, side), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1)]
    entries += [(278, side), (279, 8)]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    fields = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return head + fields + struct.pack("<I", next_frame)


def tiff_bomb() -> bytes:
    """A TIFF whose header says 400,000 x 400,000."""
    return _tiff(400_000, 0)


def tiff_cycle() -> bytes:
    """A TIFF whose first frame is followed by itself."""
    return _tiff(2, 8)


def tiff_of_many_frames() -> bytes:
    """A TIFF of 100,000 frames that share one dot of pixels."""
    one = _tiff(2, 0)[8:-4]
    size = len(one) + 4
    frames = [one + struct.pack("<I", 8 + size * index) for index in range(1, 100_000)]
    return b"II*\0" + struct.pack("<I", 8) + b"".join(frames) + one + bytes(4)
