"""A pile of hostile files, and how each must end.

    python tests/faults/poison.py build/poison

writes them all into a folder. Every one ends as said here under the limits of `LIMITS`; more memory
or time changes which limit a bomb meets, and nothing else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import poison_images as images
import poison_pdf as pdf

from pipeline.records import FailureKind

LIMITS = SimpleNamespace(renderer="pdfium", cpu_s=1.0, wall_s=20.0, memory_mb=256)

Ending = frozenset[FailureKind]
"""The kinds of failure that are right; none at all if the page must be drawn."""

DRAWN: Ending = frozenset()
_UNREADABLE = frozenset({FailureKind.UNREADABLE})
_EMPTY = frozenset({FailureKind.EMPTY})
_ENCRYPTED = frozenset({FailureKind.ENCRYPTED})
_UNSUPPORTED = frozenset({FailureKind.UNSUPPORTED})
_TOO_MANY = frozenset({FailureKind.TOO_MANY_PAGES})
_MISSING = frozenset({FailureKind.SOURCE_MISSING})
_MEMORY = frozenset({FailureKind.RENDER_MEMORY})
_TIMEOUT = frozenset({FailureKind.RENDER_TIMEOUT})
_LIMIT = _MEMORY | _TIMEOUT | {FailureKind.RENDER_CRASH}  # whichever it meets first


@dataclass(frozen=True)
class Poison:
    """A hostile file.

    `make` gives its bytes; what is no ordinary file is put in its place by `place`. `document` is
    how its plan must fail, `DRAWN` if it must not, and then `pages` tells of each of its pages.
    `by_poppler` tells of them where poppler is installed, if that makes a difference, in which case
    the plan must not fail. `bound_s` bounds plan and pages in CPU seconds. `password` is the job's.
    """

    name: str
    make: Callable[[], bytes]
    document: Ending = DRAWN
    pages: tuple[Ending, ...] = ()
    by_poppler: tuple[Ending, ...] | None = None
    bound_s: float = 2.0
    password: str | None = None
    place: Callable[[Path], None] | None = None

    def expected(self, poppler: bool) -> tuple[Ending, tuple[Ending, ...]]:
        """How the plan must end, and then each page, with poppler installed or not."""
        if poppler and self.by_poppler is not None:
            return DRAWN, self.by_poppler
        return self.document, self.pages

    def write(self, folder: Path) -> Path:
        """Put the file into a folder, and tell its path."""
        path = Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(self.name)))
        if self.place is not None:
            self.place(path)
        else:
            path.write_bytes(self.make())
        return path


def folder_named_like_a_document(path: Path) -> None:
    """A folder, with a document in it that shall not be taken for it."""
    path.mkdir()
    (path / "inside.txt").write_bytes(pdf.good())


def pipe(path: Path) -> None:
    """A named pipe that nobody writes to: who opens it waits for ever."""
    os.mkfifo(path)


def dangling_link(path: Path) -> None:
    """A link to nothing."""
    path.symlink_to(path.with_name("nowhere"))


def link_to_itself(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path)


def _second_of_three(ending: Ending) -> tuple[Ending, ...]:
    return DRAWN, ending, DRAWN


_ODD_NAMES = (
    "two\nlines.pdf",
    "'quotes' \"and\" `more`; $(touch pwned).pdf",
    "\x1b[31mred\x07\r\u202egnp.pdf",
    "-dash.pdf",
    "per%cent%20%s {0}?#.pdf",
    "l" + "o" * 240 + "ng.pdf",
)

POISONS: tuple[Poison, ...] = (
    # Pages that cost too much. Their neighbours must be drawn.
    Poison(
        "content-stream-bomb.pdf",
        pdf.content_stream_bomb,
        pages=_second_of_three(_LIMIT),
        bound_s=5,
    ),
    Poison("zip-bomb.pdf", pdf.zip_bomb, pages=(_LIMIT,), bound_s=5),
    Poison(
        "forms-in-themselves.pdf",
        pdf.forms_in_themselves,
        pages=_second_of_three(_LIMIT),
        by_poppler=_second_of_three(DRAWN),
        bound_s=5,
    ),
    Poison("forms-2^28.pdf", pdf.forms_without_end, pages=_second_of_three(_LIMIT), bound_s=5),
    Poison(
        "postscript-function.pdf",
        pdf.postscript_function,
        pages=_second_of_three(_LIMIT),
        bound_s=5,
    ),
    Poison("tiling-pattern.pdf", pdf.tiling_pattern, pages=_second_of_three(_LIMIT), bound_s=5),
    Poison("a-million-words.pdf", pdf.many_words, pages=(DRAWN,), bound_s=4),
    # Sizes. A page has one of its own, or is shown at the default of 612 x 792.
    Poison("giant-box.pdf", pdf.boxed(b"0 0 14400 14400"), pages=(DRAWN,)),
    Poison("huge-box.pdf", pdf.boxed(b"0 0 1e9 1e9"), pages=(DRAWN,)),
    Poison("long-number-box.pdf", pdf.boxed(b"0 0 " + b"9" * 400 + b" 10"), pages=(DRAWN,)),
    Poison("overflowing-box.pdf", pdf.boxed(b"0 0 1e400 1e400"), pages=(DRAWN,)),
    Poison("nan-box.pdf", pdf.boxed(b"nan 0 inf NaN"), pages=(DRAWN,)),
    Poison("empty-box.pdf", pdf.boxed(b"0 0 0 0"), pages=(DRAWN,)),
    Poison("ribbon.pdf", pdf.boxed(b"0 0 14400000 3"), pages=(DRAWN,)),
    Poison("thread.pdf", pdf.boxed(b"0 0 0.001 100000"), pages=(DRAWN,)),
    # Counts and trees.
    Poison("no-pages.pdf", pdf.no_pages, _EMPTY),
    Poison("empty-portfolio.pdf", pdf.empty_portfolio, _EMPTY),
    Poison("ten-thousand-pages.pdf", pdf.many_pages, _TOO_MANY),
    Poison("says-two-billion-pages.pdf", pdf.counting(2**31 - 1), pages=(DRAWN,)),
    Poison("says-minus-one-page.pdf", pdf.counting(-1), pages=(DRAWN,)),
    Poison("says-three-pages.pdf", pdf.counting(3), pages=(DRAWN, _UNREADABLE, _UNREADABLE)),
    Poison("cyclic-tree.pdf", pdf.cyclic_page_tree, pages=(DRAWN, _UNREADABLE)),
    Poison(
        "deep-tree.pdf", pdf.deep_page_tree, pages=(_UNREADABLE,), by_poppler=(DRAWN,), bound_s=5
    ),
    Poison("endless-tree.pdf", pdf.page_tree_without_end, _EMPTY),
    # Damage.
    *(Poison(f"cut-at-{part}.pdf", pdf.truncated(part), _UNREADABLE) for part in (10, 50, 90)),
    Poison("cut-in-its-trailer.pdf", pdf.cut_in_its_trailer, _UNREADABLE, by_poppler=(DRAWN,)),
    Poison("no-trailer.pdf", pdf.without_trailer, _UNREADABLE),
    Poison("wrong-xref.pdf", pdf.wrong_xref, pages=(DRAWN,)),
    Poison("html.pdf", pdf.html, _UNSUPPORTED),
    Poison("empty.pdf", bytes, _UNREADABLE),
    # Encryption.
    Poison("locked.pdf", pdf.encrypted(pdf.PASSWORD), _ENCRYPTED),
    Poison("locked-otherwise.pdf", pdf.encrypted(pdf.PASSWORD), _ENCRYPTED, password="wrong"),
    Poison("unlocked.pdf", pdf.encrypted(pdf.PASSWORD), pages=(DRAWN,), password=pdf.PASSWORD),
    Poison("locked-to-change.pdf", pdf.encrypted(None), pages=(DRAWN,)),
    # Images in pages: their bombs are drawn as the blank that pdfium makes of them.
    Poison("jpeg-2000.pdf", pdf.jpx_image, pages=(DRAWN,)),
    Poison("jbig2.pdf", pdf.jbig2_image, pages=(DRAWN,)),
    Poison("cmyk.pdf", pdf.cmyk_image, pages=(DRAWN,)),
    Poison("jbig2-bomb.pdf", pdf.jbig2_bomb, pages=(DRAWN,)),
    # Images.
    Poison("bomb.png", images.png_bomb, pages=(_MEMORY,)),
    Poison("text-bomb.png", images.png_text_bomb, _UNREADABLE),
    Poison("bomb.jpg", images.jpeg_bomb, pages=(_MEMORY,)),
    Poison("bomb.tiff", images.tiff_bomb, pages=(_MEMORY,)),
    Poison("cycle.tiff", images.tiff_cycle, pages=(DRAWN,)),
    Poison("many-frames.tiff", images.tiff_of_many_frames, _TIMEOUT, bound_s=3),
    # Names, and what is no file.
    *(Poison(name, pdf.good, pages=(DRAWN,)) for name in _ODD_NAMES),
    Poison(os.fsdecode(b"not\xffutf\xc3-8.pdf"), pdf.good, pages=(DRAWN,)),
    Poison("folder.pdf", bytes, _MISSING, place=folder_named_like_a_document),
    Poison("pipe.pdf", bytes, _MISSING, place=pipe),
    Poison("dangling.pdf", bytes, _MISSING, place=dangling_link),
    Poison("link-to-itself.pdf", bytes, _MISSING, place=link_to_itself),
)


def write_all(folder: Path) -> list[Path]:
    """Write every poison into a folder, and tell the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [poison.write(folder) for poison in POISONS]


def vanish(path: Path) -> None:
    """What happens to a file between listing and reading: it goes."""
    path.unlink()


def change(path: Path) -> None:
    """What happens to a file between listing and reading: another takes its place."""
    path.write_bytes(pdf.good().replace(b"(Hello)", b"(Goodbye)"))


if __name__ == "__main__":
    print(len(write_all(Path(sys.argv[1]))), "files")
