"""The demo set: a folder of labelled documents of every kind that the reader meets.

Every word and value is of the test split. Document i of seed s is `make_document("s/i")`,
whatever the reader makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.synth.document import make_document
from pipeline.synth.files import Kind, LabelledFile, labelled_file, write_files
from pipeline.synth.words import Split

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


def demo_files(seed: int) -> Iterator[LabelledFile]:
    """Yield the files of the set made from `seed`; images are at the bundled model's own scale."""
    for index, (kind, suffix, n_pages) in enumerate(_FILES):
        document = make_document(f"{seed}/{index}", Split.TEST, n_pages)
        number = 1 + sum(earlier is kind for earlier, _, _ in _FILES[:index])
        scale = 3 + index % 2 if kind is Kind.SCAN else 1
        yield labelled_file(document, kind, f"{kind}-{number:02d}", suffix, scale)


def write_demo(folder: Path, seed: int) -> int:
    """Write the set under `folder`, over files of the same names; return the number of documents.

    Raises OSError if the folder cannot be written.
    """
    return write_files(folder, demo_files(seed))
