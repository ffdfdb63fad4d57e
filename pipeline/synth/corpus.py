"""A corpus: as many labelled documents as wanted, of one page each, of all kinds of file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from pipeline.synth.document import make_document
from pipeline.synth.files import Kind, LabelledFile, labelled_file, write_files
from pipeline.synth.words import Split

_KINDS: dict[tuple[Kind, str], float] = {
    (Kind.PDF, ".pdf"): 0.30,
    (Kind.SCAN, ".pdf"): 0.20,
    (Kind.IMAGE, ".png"): 0.20,
    (Kind.IMAGE, ".jpg"): 0.18,
    (Kind.IMAGE, ".webp"): 0.06,
    (Kind.IMAGE, ".tiff"): 0.06,
}
_SCALES = (1, 2, 3, 4)


def corpus_files(seed: int, count: int, split: Split) -> Iterator[LabelledFile]:
    """Yield `count` files, their words and values of `split`; file i does not depend on `count`."""
    for index in range(count):
        name = f"corpus {seed}/{index}"
        rng = random.Random(f"file {name}")
        kind, suffix = rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
        document = make_document(name, split)
        yield labelled_file(document, kind, f"{kind}-{index:05d}", suffix, rng.choice(_SCALES))


def write_corpus(folder: Path, seed: int, count: int, split: Split) -> int:
    """Write the corpus under `folder`, over files of the same names; return the number of files.

    Raises OSError if the folder cannot be written.
    """
    return write_files(folder, corpus_files(seed, count, split))
