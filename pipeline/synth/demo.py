"""The demo set: a folder of labelled documents of every kind that the reader meets.

::

    documents/<kind>-<number>.<suffix>
    truth.jsonl     one line a file: uri (relative to the folder), kind, n_pages, record

Every word is of the test split. Document i of seed s is `make_document("s/i")`, whatever the
reader makes of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path

from pipeline.synth.document import SynthDocument, make_document
from pipeline.synth.draw import draw_page
from pipeline.synth.pdf import scan_pdf, text_pdf
from pipeline.synth.words import Split


class Kind(StrEnum):
    """How a document came to be."""

    IMAGE = "image"  # drawn at the bundled model's own scale
    PDF = "pdf"  # born digital: text in embedded fonts
    SCAN = "scan"  # a PDF with an image at several times the model's scale
    MULTIPAGE = "multipage"  # one receipt continued over the pages of a PDF or the frames of a TIFF


@dataclass(frozen=True, slots=True)
class DemoFile:
    """One file of the set; `record` is compact JSON that validates against `receipt.v1`."""

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


_FILES: tuple[tuple[Kind, str, int], ...] = (
    *[(Kind.IMAGE, ".png", 1)] * 11,
    *[(Kind.IMAGE, ".jpg", 1)] * 2,
    (Kind.IMAGE, ".webp", 1),
    (Kind.IMAGE, ".tiff", 1),
    *[(Kind.PDF, ".pdf", 1)] * 8,
    *[(Kind.SCAN, ".pdf", 1)] * 4,
    (Kind.MULTIPAGE, ".pdf", 2),
    (Kind.MULTIPAGE, ".pdf", 3),
    (Kind.MULTIPAGE, ".tiff", 2),
)


def demo_files(seed: int) -> Iterator[DemoFile]:
    """Yield the files of the set made from `seed`."""
    for index, (kind, suffix, n_pages) in enumerate(_FILES):
        document = make_document(f"{seed}/{index}", Split.TEST, n_pages)
        number = 1 + sum(earlier is kind for earlier, _, _ in _FILES[:index])
        yield DemoFile(
            uri=f"documents/{kind}-{number:02d}{suffix}",
            kind=kind,
            n_pages=n_pages,
            content=_content(document, kind, suffix, scan_scale=3 + index % 2),
            record=document.receipt.to_json(),
        )


def write_demo(folder: Path, seed: int) -> int:
    """Write the set under `folder`, over files of the same names; return the number of documents.

    Raises OSError if the folder cannot be written.
    """
    (folder / "documents").mkdir(parents=True, exist_ok=True)
    lines = []
    for file in demo_files(seed):
        (folder / file.uri).write_bytes(file.content)
        lines.append(file.truth_line + "\n")
    (folder / "truth.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)


def _content(document: SynthDocument, kind: Kind, suffix: str, scan_scale: int) -> bytes:
    if kind is Kind.SCAN:
        return scan_pdf([draw_page(page.layout, page.look, scan_scale) for page in document.pages])
    if suffix == ".pdf":
        return text_pdf(document.pages)
    return _image_file(document, suffix)


def _image_file(document: SynthDocument, suffix: str) -> bytes:
    first, *others = (draw_page(page.layout, page.look) for page in document.pages)
    file = BytesIO()
    match suffix:
        case ".png":
            first.save(file, "PNG", optimize=True)
        case ".jpg":
            first.save(file, "JPEG", quality=95)
        case ".webp":
            first.save(file, "WEBP", lossless=True)
        case _:
            first.save(file, "TIFF", compression="tiff_lzw", save_all=True, append_images=others)
    return file.getvalue()
