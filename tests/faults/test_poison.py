"""What hostile files cost: themselves, within bounds, and nothing after them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import poison_pdf
import psutil
import pytest
from poison import DRAWN, LIMITS, POISONS, Poison, change, vanish

from pipeline.job import Input
from pipeline.models.base import PagePlan
from pipeline.records import Document, Failure, FailureKind, MediaType, Page, Plan
from pipeline.render.renderer import Renderer
from pipeline.stages.discover import discover
from pipeline.stages.plan import plan, shards
from pipeline.stages.rasterize import OpenDocument, rasterize

MAX_PAGES = 5000  # as jobs have it
PATH = os.environ["PATH"]


def plan_page(width: float, height: float, scalable: bool) -> PagePlan:
    """Longest edge 200."""
    del scalable
    scale = 200 / max(width, height)
    drawn = max(1, round(width * scale)), max(1, round(height * scale))
    return PagePlan(*drawn, *drawn)


@pytest.fixture(scope="module")
def poppler_hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path_factory.mktemp("bin")))
        yield


@pytest.fixture(scope="module")
def renderer(poppler_hidden: None) -> Iterator[Renderer]:
    with Renderer(LIMITS, plan_page) as renderer:
        yield renderer


@pytest.fixture(scope="module")
def good_page(renderer: Renderer) -> Page:
    renderer.open(poison_pdf.good())
    return renderer.draw(1)


def document_of(path: Path) -> Document:
    """The file as discover lists it; or as a manifest may name it, if discover passes it over."""
    listed = list(discover(Input(paths=(str(path.parent),))))
    return listed[0] if listed else Document(str(path), 0, "", MediaType.PDF)


def ends(planned: Plan, renderer: Renderer) -> list[Page | Failure]:
    """Every page of a plan, drawn as a run would."""
    found = shards([(planned, planned.page_numbers)])
    windows = [window for shard in found for window in shard.windows]
    document = OpenDocument(renderer)
    return [item for window in windows for item in rasterize(window, document)]


def cpu_s() -> float:
    """CPU seconds of this process and of all that it started."""
    used = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        used += times.user + times.system
    return used


def check(poison: Poison, folder: Path, renderer: Renderer, poppler: bool = False) -> None:
    document = document_of(poison.write(folder))
    expected, expected_pages = poison.expected(poppler)
    before = cpu_s()
    planned = plan(document, renderer, None, MAX_PAGES)
    items = ends(planned, renderer)
    assert cpu_s() - before < poison.bound_s

    failures = [planned.failure, *(item for item in items if isinstance(item, Failure))]
    for failure in filter(None, failures):
        assert failure.message.isprintable()
        assert 0 < len(failure.message) <= 300
        assert str(folder) not in failure.message
    assert (planned.failure.kind in expected) if planned.failure else expected == DRAWN, planned
    assert len(items) == len(expected_pages) == len(planned.page_numbers)
    for item, ending in zip(items, expected_pages, strict=True):
        assert (item.kind in ending) if isinstance(item, Failure) else ending == DRAWN, item


@pytest.mark.parametrize("poison", POISONS, ids=lambda poison: ascii(poison.name))
def test_it_ends_as_said_and_leaves_the_renderer_sound(
    poison: Poison, tmp_path: Path, renderer: Renderer, good_page: Page
) -> None:
    if poison.password is None:
        check(poison, tmp_path, renderer)
    else:
        with Renderer(LIMITS, plan_page, poison.password) as other:
            check(poison, tmp_path, other)
    renderer.open(poison_pdf.good())
    after = renderer.draw(1)
    assert after.image.tobytes() == good_page.image.tobytes()
    assert after.words == good_page.words


@pytest.mark.skipif(shutil.which("pdftoppm") is None, reason="needs poppler")
@pytest.mark.parametrize(
    "poison", [p for p in POISONS if p.by_poppler is not None], ids=lambda poison: poison.name
)
def test_poppler_saves_what_it_can(
    poison: Poison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", PATH)
    with Renderer(LIMITS, plan_page) as renderer:
        check(poison, tmp_path, renderer, poppler=True)


@pytest.mark.parametrize(
    ("meanwhile", "kind"),
    [(vanish, FailureKind.SOURCE_MISSING), (change, FailureKind.SOURCE_CHANGED)],
)
def test_what_is_not_as_listed_fails_whenever_that_is_noticed(
    meanwhile: Callable[[Path], None], kind: FailureKind, tmp_path: Path, renderer: Renderer
) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(poison_pdf.good())
    listed = document_of(path)
    planned = plan(listed, renderer, None, MAX_PAGES)
    meanwhile(path)
    too_late = plan(listed, renderer, None, MAX_PAGES)
    assert too_late.failure is not None
    assert too_late.failure.kind is kind
    assert [item.kind for item in ends(planned, renderer) if isinstance(item, Failure)] == [kind]


def test_ten_thousand_pages_are_refused_at_once(tmp_path: Path, renderer: Renderer) -> None:
    path = tmp_path / "long.pdf"
    path.write_bytes(poison_pdf.many_pages())
    listed = document_of(path)
    started = time.process_time()
    planned = plan(listed, renderer, None, MAX_PAGES)
    assert planned.n_pages == 10_000
    assert planned.page_numbers == ()
    assert time.process_time() - started < 0.5
