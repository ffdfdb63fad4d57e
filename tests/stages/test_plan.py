from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import fpdf
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models.base import PagePlan
from pipeline.records import (
    Document,
    Failure,
    FailureKind,
    MediaType,
    Plan,
    Shard,
    StageName,
)
from pipeline.render.renderer import Renderer
from pipeline.selection import parse_pages
from pipeline.stages.plan import PAGES_PER_SHARD, plan, shards


@dataclass(frozen=True)
class Settings:
    renderer: str = "pdfium"
    cpu_s: float = 10
    wall_s: float = 30
    memory_mb: int = 512


def small(width: float, height: float, scalable: bool) -> PagePlan:
    del width, height, scalable
    return PagePlan(20, 30, 20, 30)


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with Renderer(Settings(), small) as renderer:
        yield renderer


def pdf(path: Path, n_pages: int, password: str | None = None) -> Path:
    document = fpdf.FPDF()
    for _ in range(n_pages):
        document.add_page()
    if password is not None:
        document.set_encryption(owner_password="owner", user_password=password)
    document.output(str(path))
    return path


def listed(path: Path) -> Document:
    info = path.stat()
    return Document(str(path), info.st_size, str(info.st_mtime_ns), MediaType.PDF, {"batch": "7"})


def planned(
    path: Path | Document, renderer: Renderer, pages: str | None = None, max_pages: int = 5000
) -> Plan:
    document = path if isinstance(path, Document) else listed(path)
    return plan(document, renderer, None if pages is None else parse_pages(pages), max_pages)


def test_a_plan_names_the_content_and_every_page(tmp_path: Path, renderer: Renderer) -> None:
    path = pdf(tmp_path / "a.pdf", 3)
    found = planned(path, renderer)
    assert found.document == listed(path)
    assert found.document_id == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.n_pages, found.page_numbers, found.failure) == (3, (1, 2, 3), None)


def test_the_same_bytes_are_the_same_document(tmp_path: Path, renderer: Renderer) -> None:
    one = pdf(tmp_path / "a.pdf", 1)
    other = tmp_path / "b.pdf"
    other.write_bytes(one.read_bytes())
    assert planned(one, renderer).document_id == planned(other, renderer).document_id


def test_an_image_is_one_page(tmp_path: Path, renderer: Renderer) -> None:
    PIL.Image.new("L", (30, 20)).save(tmp_path / "a.png")
    found = planned(tmp_path / "a.png", renderer)
    assert (found.n_pages, found.page_numbers) == (1, (1,))


def test_selected_pages_are_those_the_document_has(tmp_path: Path, renderer: Renderer) -> None:
    path = pdf(tmp_path / "a.pdf", 5)
    assert planned(path, renderer, "4-").page_numbers == (4, 5)
    assert planned(path, renderer, "5,1-2,9").page_numbers == (1, 2, 5)
    assert planned(path, renderer, "5,1-2,9").n_pages == 5


def failure_of(found: Plan) -> Failure:
    assert found.page_numbers == ()
    assert found.failure is not None
    assert found.failure.stage is StageName.DISCOVER
    assert found.failure.message.isprintable()
    return found.failure


def test_a_selection_of_no_page_is_empty(tmp_path: Path, renderer: Renderer) -> None:
    found = planned(pdf(tmp_path / "a.pdf", 2), renderer, "3-9")
    assert failure_of(found).kind is FailureKind.EMPTY
    assert found.n_pages == 2
    assert "2 pages" in failure_of(found).message


def test_too_many_pages_fail_the_document_whole(tmp_path: Path, renderer: Renderer) -> None:
    path = pdf(tmp_path / "a.pdf", 4)
    found = planned(path, renderer, max_pages=3)
    assert failure_of(found).kind is FailureKind.TOO_MANY_PAGES
    assert found.n_pages == 4
    assert "4 pages" in failure_of(found).message
    assert planned(path, renderer, max_pages=4).failure is None
    assert planned(path, renderer, "2-3", max_pages=2).page_numbers == (2, 3)
    assert failure_of(planned(path, renderer, "1-3", max_pages=2)).kind == "too_many_pages"


def test_a_missing_file_has_no_identity(tmp_path: Path, renderer: Renderer) -> None:
    document = listed(pdf(tmp_path / "a.pdf", 1))
    (tmp_path / "a.pdf").unlink()
    found = planned(document, renderer)
    assert failure_of(found).kind is FailureKind.SOURCE_MISSING
    assert (found.document_id, found.n_pages) == (None, None)


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_after_it_was_listed(
    tmp_path: Path, renderer: Renderer, change: str
) -> None:
    path = pdf(tmp_path / "a.pdf", 1)
    document = listed(path)
    if change == "size":
        path.write_bytes(path.read_bytes() + b" ")
        os.utime(path, ns=(int(document.modified), int(document.modified)))
    else:
        os.utime(path, ns=(1, 1))
    found = planned(document, renderer)
    assert failure_of(found).kind is FailureKind.SOURCE_CHANGED
    assert (found.document_id, found.n_pages) == (None, None)


def test_an_encrypted_file_has_an_identity_but_no_count(tmp_path: Path, renderer: Renderer) -> None:
    path = pdf(tmp_path / "a.pdf", 2, password="secret")
    found = planned(path, renderer)
    assert failure_of(found).kind is FailureKind.ENCRYPTED
    assert found.document_id == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.n_pages is None
    with Renderer(Settings(), small, password="secret") as knowing:
        assert planned(path, knowing).page_numbers == (1, 2)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"", "unreadable"), (b"hello", "unsupported"), (b"%PDF-1.4\nrubbish", "unreadable")],
)
def test_a_broken_file_is_a_failure(
    tmp_path: Path, renderer: Renderer, content: bytes, kind: str
) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    found = planned(tmp_path / "a.pdf", renderer)
    assert failure_of(found).kind == kind
    assert found.document_id == hashlib.sha256(content).hexdigest()


# ---- shards ----------------------------------------------------------------------------------


def made_plan(index: int, pages: tuple[int, ...], failed: bool = False) -> Plan:
    document = Document(f"{index}.pdf", index, f"t{index}", MediaType.PDF, {"row": str(index)})
    failure = Failure(StageName.DISCOVER, FailureKind.EMPTY, "no page") if failed else None
    return Plan(document, f"id{index}", 99, () if failed else pages, failure)


def drawn(found: list[Shard]) -> list[tuple[str, int]]:
    return [
        (window.document_id, number)
        for shard in found
        for window in shard.windows
        for number in window.page_numbers
    ]


PLANS = st.lists(
    st.tuples(st.sets(st.integers(1, 60), min_size=1, max_size=50), st.integers(0, 9)), max_size=9
)


@settings(max_examples=60, deadline=None)
@given(PLANS, st.sets(st.tuples(st.integers(0, 11), st.integers(1, 60)), max_size=80))
def test_shards_cover_the_plan_exactly_and_in_order(
    drawn_plans: list[tuple[set[int], int]], done: set[tuple[int, int]]
) -> None:
    plans = [
        made_plan(index, tuple(sorted(pages)), failed=luck < 2)
        for index, (pages, luck) in enumerate(drawn_plans)
    ]
    done_ids = {(f"id{index}", (number,)) for index, number in done}
    todo = [
        tuple(n for n in item.page_numbers if (item.document_id, (n,)) not in done_ids)
        for item in plans
    ]
    found = list(shards(zip(plans, todo, strict=True)))
    assert drawn(found) == [
        (str(item.document_id), number)
        for item in plans
        for number in item.page_numbers
        if (item.document_id, (number,)) not in done_ids
    ]
    assert all(shard.n_pages == PAGES_PER_SHARD for shard in found[:-1])
    assert all(1 <= shard.n_pages <= PAGES_PER_SHARD for shard in found)
    by_id = {item.document_id: item for item in plans}
    for window in (window for shard in found for window in shard.windows):
        document = by_id[window.document_id].document
        assert window.page_numbers
        assert (window.uri, window.size, window.modified, window.source) == (
            document.uri,
            document.size,
            document.modified,
            document.source,
        )
        assert window.n_pages == 99


def test_a_long_document_spans_shards_and_short_ones_share_one() -> None:
    plans = [made_plan(0, tuple(range(1, 36))), made_plan(1, (2,)), made_plan(2, (1, 2))]
    found = list(shards((item, item.page_numbers) for item in plans))
    assert sizes(found) == [[16], [16], [3, 1, 2]]


def sizes(found: list[Shard]) -> list[list[int]]:
    return [[len(window.page_numbers) for window in shard.windows] for shard in found]


@settings(max_examples=60, deadline=None)
@given(PLANS, st.sets(st.tuples(st.integers(0, 9), st.integers(1, 60))), st.integers(1, 20))
def test_a_window_is_what_is_to_do_of_one_sample(
    drawn_plans: list[tuple[set[int], int]], done: set[tuple[int, int]], pages_per_sample: int
) -> None:
    plans = [made_plan(index, tuple(sorted(pages))) for index, (pages, _) in enumerate(drawn_plans)]
    expected = []
    for index, item in enumerate(plans):
        samples: dict[int, list[int]] = {}
        for place, number in enumerate(item.page_numbers):
            if (index, number) not in done:
                samples.setdefault(place // pages_per_sample, []).append(number)
        expected += [(item.document_id, tuple(pages)) for pages in samples.values()]
    todo = [
        tuple(number for number in item.page_numbers if (index, number) not in done)
        for index, item in enumerate(plans)
    ]
    found = list(shards(zip(plans, todo, strict=True), pages_per_sample))
    windows = [window for shard in found for window in shard.windows]
    assert [(window.document_id, window.page_numbers) for window in windows] == expected
    assert all(shard.n_pages <= PAGES_PER_SHARD or len(shard.windows) == 1 for shard in found)
    for shard, behind in pairwise(found):
        assert shard.n_pages + len(behind.windows[0].page_numbers) > PAGES_PER_SHARD


def test_a_sample_larger_than_a_shard_is_one_by_itself() -> None:
    plans = [made_plan(0, (1, 2)), made_plan(1, tuple(range(1, 50))), made_plan(2, (1,))]
    work = [(item, item.page_numbers) for item in plans]
    assert sizes(list(shards(work, 20))) == [[2], [20], [20], [9, 1]]
    assert sizes(list(shards(work, 8))) == [[2, 8], [8, 8], [8, 8], [8, 1, 1]]


def test_nothing_to_do_makes_no_shard() -> None:
    assert list(shards([])) == []
    assert list(shards([(made_plan(0, (1,), failed=True), (1,))])) == []
    assert list(shards([(made_plan(0, (1, 2)), ())])) == []
