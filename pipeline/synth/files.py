"""Files of labelled documents: a document -> the bytes of a file and its line of truth.

::

    documents/<kind>-<number>.<suffix>
    truth.jsonl     one line a file: uri (relative to the folder), kind, n_pages, record
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from io import BytesIO
from pathlib import Path

from pipeline.synth.atlas import Edges
from pipeline.synth.document import SynthDocument
from pipeline.synth.draw import Look, Printed, draw_page
from pipeline.synth.pdf import scan_pdf, text_pdf

_JPEG_QUALITY = 95
_SCAN_QUALITY = 80


class Kind(StrEnum):
    """How a document came to be."""

    IMAGE = "image"  # an image file
    PDF = "pdf"  # born digital: text in embedded fonts
    SCAN = "scan"  # a PDF with an image at several times the model's scale
    MULTIPAGE = "multipage"  # one receipt continued over the pages of a PDF or the frames of a TIFF


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One file of a set; `record` is compact JSON that validates against its schema."""

    uri: str
    kind: Kind
    n_pages: int
    content: bytes
    record: str

    @property
    def truth_line(self) -> str:
        """The file's line of `truth.jsonl`, amounts as exact as in `record`."""
        return (
            f'{{"uri":{json.dumps(self.uri)},"kind":"{self.kind}",'
            f'"n_pages":{self.n_pages},"record":{self.record}}}'
        )


def labelled_file(
    document: SynthDocument, kind: Kind, name: str, suffix: str, scale: int
) -> LabelledFile:
    """Return the document as `documents/<name><suffix>`, its images `scale` times the layout."""
    return printed_file(document.pages, document.receipt.to_json(), kind, name, suffix, scale)


def printed_file(
    pages: Sequence[Printed], record: str, kind: Kind, name: str, suffix: str, scale: int
) -> LabelledFile:
    """Return pages that state `record` as `documents/<name><suffix>`, likewise."""
    return LabelledFile(
        uri=f"documents/{name}{suffix}",
        kind=kind,
        n_pages=len(pages),
        content=_content(pages, kind, suffix, scale),
        record=record,
    )


def write_files(folder: Path, files: Iterable[LabelledFile]) -> int:
    """Write the set under `folder`, over files of the same names; return the number of documents.

    Raises OSError if the folder cannot be written.
    """
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    lines = []
    for file in files:
        (folder / file.uri).write_bytes(file.content)
        lines.append(file.truth_line + "\n")
    (folder / "truth.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def look_in_file(look: Look, kind: Kind, suffix: str) -> Look:
    """Return how a page of `look` looks in a file of this kind.

    A born-digital page has sharp letters of the same ink on white paper. Where the file is a JPEG
    or holds one, that is the page's only packing.
    """
    if suffix == ".pdf" and kind is not Kind.SCAN:
        return Look(ink=look.ink, edges=Edges.SMOOTH)
    if kind is Kind.SCAN:
        return replace(look, jpeg=look.jpeg or _SCAN_QUALITY)
    if suffix == ".jpg":
        return replace(look, jpeg=look.jpeg or _JPEG_QUALITY)
    return look


def _content(pages: Sequence[Printed], kind: Kind, suffix: str, scale: int) -> bytes:
    if suffix == ".pdf" and kind is not Kind.SCAN:
        return text_pdf(pages)
    looks = [look_in_file(page.look, kind, suffix) for page in pages]
    packed = kind is Kind.SCAN or suffix == ".jpg"
    images = [
        draw_page(page.layout, replace(look, jpeg=0) if packed else look, scale)
        for page, look in zip(pages, looks, strict=True)
    ]
    if kind is Kind.SCAN:
        return scan_pdf(images, [look.jpeg for look in looks])
    first, *others = images
    file = BytesIO()
    match suffix:
        case ".png":
            first.save(file, "PNG")
        case ".jpg":
            first.save(file, "JPEG", quality=looks[0].jpeg)
        case ".webp":
            first.save(file, "WEBP", lossless=True, quality=20, method=2)
        case _:
            first.save(file, "TIFF", compression="tiff_lzw", save_all=True, append_images=others)
    return file.getvalue()
