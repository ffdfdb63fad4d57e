from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import fpdf
import PIL.Image
import pytest

from pipeline.models.base import PagePlan
from pipeline.records import Failure, FailureKind, Page, StageName, Window
from pipeline.render.renderer import DocumentInfo, Renderer
from pipeline.stages.rasterize import OpenDocument, rasterize

STRIP_OFFSETS = 273  # TIFF tag


@dataclass(frozen=True)
class Settings:
    renderer: str = "pdfium"
    cpu_s: float = 10
    wall_s: float = 30
    memory_mb: int = 512


def narrow(width: float, height: float, scalable: bool) -> PagePlan:
    """Pages 100 px wide, and 10 px of canvas below them."""
    assert scalable
    drawn = max(1, round(100 * height / width))
    return PagePlan(100, drawn, 100, drawn + 10)


@pytest.fixture(scope="module")
def document() -> Iterator[OpenDocument]:
    with Renderer(Settings(), narrow) as renderer:
        yield OpenDocument(renderer)


def pdf(path: Path, *heights: int) -> Path:
    """Pages 100 mm wide, each naming its number."""
    document = fpdf.FPDF(unit="mm")
    document.set_font("Helvetica", size=24)
    for number, height in enumerate(heights, 1):
        document.add_page(format=(100, height))
        document.cell(text=f"Page{number}")
    document.output(str(path))
    return path


def window(path: Path, *pages: int, n_pages: int = 3) -> Window:
    info = path.stat()
    return Window("d" * 64, str(path), info.st_size, str(info.st_mtime_ns), n_pages, pages)


def failures(found: list[Page | Failure]) -> list[FailureKind]:
    assert all(isinstance(item, Failure) for item in found)
    assert all(item.stage is StageName.RASTERIZE for item in found)
    assert all(item.message.isprintable() and item.message for item in found)
    return [item.kind for item in found]


def test_a_windows_pages_are_drawn_in_order(tmp_path: Path, document: OpenDocument) -> None:
    path = pdf(tmp_path / "a.pdf", 100, 150, 200)
    pages = list(rasterize(window(path, 1, 3), document))
    assert [page.number for page in pages] == [1, 3]
    assert [page.image.shape for page in pages] == [(110, 100, 1), (210, 100, 1)]
    assert [[word.text for word in page.words] for page in pages] == [["Page1"], ["Page3"]]
    assert all(page.image.min() < 100 for page in pages)


def test_pages_are_drawn_one_at_a_time(tmp_path: Path, document: OpenDocument) -> None:
    path = pdf(tmp_path / "a.pdf", 100, 150, 200)
    pages = rasterize(window(path, 1, 2, 3), document)
    first = next(pages)
    assert isinstance(first, Page)
    before = first.image.copy()
    assert [page.number for page in pages] == [2, 3]
    assert (first.image == before).all(), "the next page must not be drawn over it"


def test_a_file_that_vanished_fails_every_page(tmp_path: Path, document: OpenDocument) -> None:
    asked = window(pdf(tmp_path / "a.pdf", 100, 100, 100), 1, 2, 3)
    (tmp_path / "a.pdf").unlink()
    found = list(rasterize(asked, document))
    assert failures(found) == [FailureKind.SOURCE_MISSING] * 3


def test_a_file_that_changed_fails_every_page(tmp_path: Path, document: OpenDocument) -> None:
    path = pdf(tmp_path / "a.pdf", 100, 100, 100)
    asked = window(path, 1, 2)
    os.utime(path, ns=(1, 1))
    assert failures(list(rasterize(asked, document))) == [FailureKind.SOURCE_CHANGED] * 2


def test_a_document_is_opened_once_for_all_its_windows(
    tmp_path: Path, document: OpenDocument, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    open_document = Renderer.open

    def noted(self: Renderer, source: Path) -> DocumentInfo:
        opened.append(source)
        return open_document(self, source)

    monkeypatch.setattr(Renderer, "open", noted)
    first, second = pdf(tmp_path / "a.pdf", 100, 150, 200), pdf(tmp_path / "b.pdf", 90, 90, 90)
    for path, number, height in (
        (first, 1, 110),
        (first, 3, 210),
        (second, 2, 100),
        (first, 2, 160),
    ):
        (page,) = rasterize(window(path, number), document)
        assert page.image.shape[0] == height
    assert opened == [first, second, first]
    asked = window(first, 3)
    os.utime(first, ns=(1, 1))
    assert failures(list(rasterize(asked, document))) == [FailureKind.SOURCE_CHANGED]
    (page,) = rasterize(window(first, 3), document)
    assert len(opened) == 4


def test_a_file_with_other_pages_than_planned_has_changed_whatever_its_date(
    tmp_path: Path, document: OpenDocument
) -> None:
    """Some stores keep no times, and a file can be replaced just after it was looked at."""
    path = pdf(tmp_path / "a.pdf", 100)
    asked = window(path, 1, 2, 3, n_pages=3)
    assert failures(list(rasterize(asked, document))) == [FailureKind.SOURCE_CHANGED] * 3


def test_a_file_that_vanishes_halfway_costs_no_page_its_item(
    tmp_path: Path, document: OpenDocument
) -> None:
    path = pdf(tmp_path / "a.pdf", 100, 100, 100)
    found = []
    for item in rasterize(window(path, 1, 2, 3), document):
        path.unlink(missing_ok=True)
        found.append(item)
    assert len(found) == 3
    assert isinstance(found[0], Page)
    assert all(isinstance(item, Page | Failure) for item in found)


def test_a_broken_file_fails_every_page(tmp_path: Path, document: OpenDocument) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7\nnothing")
    assert failures(list(rasterize(window(path, 1, 2), document))) == [FailureKind.UNREADABLE] * 2


def test_a_page_that_fails_costs_itself_only(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    frames = [PIL.Image.effect_noise((50, 40), 60) for _ in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:], compression="tiff_adobe_deflate")
    with PIL.Image.open(path) as image:
        image.seek(1)
        (start,) = image.tag_v2[STRIP_OFFSETS]
    data = bytearray(path.read_bytes())
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    with Renderer(Settings(), lambda *_: PagePlan(50, 40, 50, 40)) as images:
        found = list(rasterize(window(path, 1, 2, 3), OpenDocument(images)))
    assert [type(item) for item in found] == [Page, Failure, Page]
    assert failures(found[1:2]) == [FailureKind.UNREADABLE]
    assert [found[0].number, found[2].number] == [1, 3]
    assert (found[2].image[:, :, 0] == frames[2]).all()


def test_a_file_that_may_not_be_read_fails_every_page(
    tmp_path: Path, document: OpenDocument
) -> None:
    folder = tmp_path / "a.pdf"
    folder.mkdir()
    assert failures(list(rasterize(window(folder, 1, 2), document))) == ["source_missing"] * 2


def test_frames_of_a_tiff_are_pages(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (50, 40), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.tiff", save_all=True, append_images=frames[1:])
    with Renderer(Settings(), lambda *_: PagePlan(50, 40, 60, 50)) as images:
        pages = list(rasterize(window(tmp_path / "a.tiff", 1, 2, n_pages=2), OpenDocument(images)))
    assert [page.image.shape for page in pages] == [(50, 60, 3)] * 2
    assert [tuple(page.image[5, 5]) for page in pages] == [(255, 0, 0), (0, 0, 255)]
    assert all((page.image[40:] == 255).all() for page in pages), "the canvas is white"
