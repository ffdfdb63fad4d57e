"""A corpus: as many labelled documents as wanted, of one page each, of all kinds of file."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.synth.document import SynthDocument, make_document
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


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A document and the file that it becomes; images are drawn `scale` times the layout."""

    name: str
    document: SynthDocument
    kind: Kind
    suffix: str
    scale: int

    def file(self) -> LabelledFile:
        """Return the file."""
        return labelled_file(self.document, self.kind, self.name, self.suffix, self.scale)


def corpus_documents(seed: int, count: int, split: Split) -> Iterator[CorpusDocument]:
    """Yield `count` documents, words and values of `split`; the i-th does not depend on `count`."""
    for index in range(count):
        name = f"corpus {seed}/{index}"
        rng = random.Random(f"file {name}")
        kind, suffix = rng.choices(tuple(_KINDS), tuple(_KINDS.values()))[0]
        document, scale = make_document(name, split), rng.choice(_SCALES)
        yield CorpusDocument(f"{kind}-{index:05d}", document, kind, suffix, scale)


def corpus_files(seed: int, count: int, split: Split) -> Iterator[LabelledFile]:
    """Yield the files of `corpus_documents`."""
    for document in corpus_documents(seed, count, split):
        yield document.file()


def write_corpus(folder: Path, seed: int, count: int, split: Split) -> int:
    """Write the corpus under `folder`, over files of the same names; return the number of files.

    Raises OSError if the folder cannot be written.
    """
    return write_files(folder, corpus_files(seed, count, split))
