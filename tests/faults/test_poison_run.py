"""A whole run over hostile files among good ones; `infra/proofs/poison_run.py` is the long form."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import poison_pdf
import pytest
from PIL import Image
from poison import LIMITS, POISONS, change, vanish
from poison_pile import (
    HARMS,
    Expected,
    accounts,
    expect_good,
    expect_harm,
    expect_poison,
    judge,
    uri_of,
    write_harm,
)
from rich.console import Console

from pipeline.job import Job
from pipeline.records import FailureKind
from pipeline.runners.run import Options, run

Rows = Callable[[Path | str, str], list[dict[str, Any]]]

CHOSEN = (
    "content-stream-bomb.pdf",
    "nan-box.pdf",
    "no-pages.pdf",
    "ten-thousand-pages.pdf",
    "says-three-pages.pdf",
    "cut-in-its-trailer.pdf",
    "html.pdf",
    "locked.pdf",
    "bomb.png",
    "two\nlines.pdf",
    "not\udcffutf\udcc3-8.pdf",
    "pipe.pdf",
)
BEARABLE = ("fails_on", "runs_out_on")  # the others end the process, which is the test's own


class Listener(io.StringIO):
    """A terminal that does something once the run says that it begins to read."""

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._then = then

    def write(self, text: str) -> int:
        if text.startswith("reading:"):
            self._then()
            self._then = lambda: None
        return super().write(text)


@pytest.fixture
def pile(tmp_path: Path) -> dict[str, Expected]:
    """Files in `in`, those that will change in `late`, and what must become of each."""
    folder, late = tmp_path / "in", tmp_path / "late"
    folder.mkdir()
    late.mkdir()
    found = {}
    for number in range(10):
        path = folder / f"{number}.png"
        Image.new("L", (40, 56), 100 + number).save(path)
        found[uri_of(path)] = expect_good(path, 1)
    for poison in (poison for poison in POISONS if poison.name in CHOSEN):
        path = poison.write(folder if poison.place is None else late)
        found[uri_of(path)] = expect_poison(poison, path, None)
    for harm in BEARABLE:
        path = write_harm(folder, harm)
        found[uri_of(path)] = expect_harm(path, harm)
    meanwhile = (("v", FailureKind.SOURCE_MISSING), ("c", FailureKind.SOURCE_CHANGED))
    for name, kind in meanwhile:
        path = late / f"{name}.pdf"
        path.write_bytes(poison_pdf.good().replace(b"(Hello)", b"(Hell%s)" % name.encode()))
        good, ending = expect_good(path, 1), frozenset({kind})
        found[uri_of(path)] = Expected(path.name, pages=(ending,), content=good.content)
    return found


def test_every_document_ends_as_it_must_and_only_what_is_asked_for_is_tried_again(
    pile: dict[str, Expected], tmp_path: Path, rows: Rows
) -> None:
    late, out = tmp_path / "late", tmp_path / "out"
    harms = "&".join(f"{harm}={HARMS[harm][0]}" for harm in BEARABLE)
    job = Job.model_validate(
        {
            "input": {"paths": [str(tmp_path / "in")], "manifest": str(_manifest(late))},
            "task": "ocr",
            "model": {"family": "fake", "name": f"fake?edge=56&{harms}"},
            "render": {"cpu_s": 0.5, "memory_mb": LIMITS.memory_mb},
            "output": {"uri": str(out)},
        }
    )

    def meanwhile() -> None:
        vanish(late / "v.pdf")
        change(late / "c.pdf")

    def check() -> None:
        documents, pages = rows(out, "documents"), rows(out, "pages")
        assert [one for one in judge(pile, documents, pages) if not one.right] == []
        assert accounts(pile, documents, pages) == []

    run(job, Options("local"), Console(file=Listener(meanwhile)))
    check()
    assert accounts(pile, rows(out, "documents")[1:], rows(out, "pages") * 2) != []

    pile[str(late / "v.pdf")] = Expected("v.pdf", frozenset({FailureKind.SOURCE_MISSING}))
    pile[str(late / "c.pdf")] = expect_good(late / "c.pdf", 1)
    retry = Options("local", retry=frozenset({FailureKind.MODEL_ERROR}))
    again = run(job, retry, Console(file=io.StringIO()))
    check()
    assert again.done.kinds == {"model_error": 1}
    assert again.done.pages == 2  # and the one of the file that changed


def _manifest(late: Path) -> Path:
    """Name what no listing of a folder gives, and what shall be read last."""
    path = late.with_suffix(".csv")
    path.write_text("\n".join(["uri", *(str(file) for file in sorted(late.iterdir()))]))
    return path
