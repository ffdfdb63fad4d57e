"""What a document is, by its first bytes."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ItemError
from pipeline.records import FailureKind, MediaType

# A PDF's header may stand anywhere in the first 1,024 bytes (ISO 32000-1, Annex H, note 13).
_HEAD_BYTES = 1024
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": MediaType.PNG,
    b"\xff\xd8\xff": MediaType.JPEG,
    b"II*\0": MediaType.TIFF,
    b"MM\0*": MediaType.TIFF,
    b"II+\0": MediaType.TIFF,
    b"MM\0+": MediaType.TIFF,
}


def read_media_type(source: Path | bytes, named: MediaType | None) -> MediaType:
    """The type that the content shows; its name or listing (`named`) only serves the message.

    Raises:
        ItemError: source_missing, unreadable if the file is empty, or unsupported.
    """
    head = source[:_HEAD_BYTES] if isinstance(source, bytes) else _read_head(source)
    for signature, media_type in _SIGNATURES.items():
        if head.startswith(signature):
            return media_type
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return MediaType.WEBP
    if b"%PDF-" in head:
        return MediaType.PDF
    if not head:
        raise ItemError(FailureKind.UNREADABLE, "the file is empty")
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    content = "HTML" if start.startswith((b"<!doctype html", b"<html")) else "of no type we read"
    listed = f"listed as {named}, but " if named else ""
    raise ItemError(FailureKind.UNSUPPORTED, f"{listed}the content is {content}")


def _read_head(path: Path) -> bytes:
    try:
        if not path.is_file():  # to open a named pipe is to wait for who writes to it
            raise ItemError(FailureKind.SOURCE_MISSING, "there is no such file")
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or type(error).__name__}"
        raise ItemError(FailureKind.SOURCE_MISSING, message) from None
