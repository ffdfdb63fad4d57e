"""Listing object stores: by the page, in order, and no more than a pattern needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

import pytest
from recording_s3 import Numbered, RecordingS3, recording_s3

from pipeline.errors import InputError, RunError
from pipeline.job import Input
from pipeline.lake.stores import Stores
from pipeline.stages.discover import Discovery
from pipeline.store_settings import Store


@pytest.fixture
def s3() -> Iterator[RecordingS3]:
    with recording_s3() as server:
        yield server


def listed(s3: RecordingS3, *paths: str) -> Discovery:
    store = Store(endpoint=s3.endpoint, anonymous=True, attempts=3)
    return Discovery(Input(paths=paths), Stores.of({"s3://": store}))


def keys(s3: RecordingS3, pattern: str) -> list[str]:
    return [one.uri.removeprefix("s3://b/") for one in listed(s3, f"s3://b/{pattern}")]


@pytest.mark.parametrize("path", ["scans", "scans/*.pdf", "**/*.pdf", "scans/0*"])
def test_the_first_document_comes_after_the_first_page(s3: RecordingS3, path: str) -> None:
    s3.keys = Numbered(5000)
    found = listed(s3, f"s3://b/{path}")
    assert next(found).uri == "s3://b/scans/00000000.pdf"
    assert sum(request.lists for request in s3.requests) <= 3
    assert [one.uri for one in found][-1] == "s3://b/scans/00004999.pdf"
    assert sum(request.lists for request in s3.requests) <= 9


def test_no_page_is_asked_for_before_its_turn(s3: RecordingS3) -> None:
    s3.keys = Numbered(5000)
    found = listed(s3, "s3://b/scans")
    for pages in (1, 2, 3):
        assert len(list(islice(found, 1000))) == 1000
        assert len(s3.requests) <= 2 + pages


KEYS = ["a.pdf", "in/.h/x.pdf", "in/.h.pdf", "in/a.pdf", "in/b.txt", "in/x/", "in/x/c d.pdf"]
KEYS += ["in/x/y/e.pdf", "in2/f.pdf", "p [1]/g.pdf", "p 1/h.pdf"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("in", ["in/a.pdf", "in/x/c%20d.pdf", "in/x/y/e.pdf"]),
        ("in/*.pdf", ["in/a.pdf"]),
        ("in*/*.pdf", ["in/a.pdf", "in2/f.pdf"]),
        ("in/**", ["in/a.pdf", "in/x/c%20d.pdf", "in/x/y/e.pdf"]),
        ("**/[a-e].pdf", ["a.pdf", "in/a.pdf", "in/x/y/e.pdf"]),
        ("in/?.pdf", ["in/a.pdf"]),
        ("**/x/**/*.pdf", ["in/x/c%20d.pdf", "in/x/y/e.pdf"]),
        ("in/**/**/e.pdf", ["in/x/y/e.pdf"]),
        ("in/.h/*", ["in/.h/x.pdf"]),
        ("p [1]/*", ["p%20%5B1%5D/g.pdf"]),
        ("in/x/c d.pdf", ["in/x/c%20d.pdf"]),
    ],
)
def test_globs_mean_in_a_bucket_what_they_mean_on_a_disk(
    s3: RecordingS3, pattern: str, expected: list[str]
) -> None:
    s3.keys = sorted(KEYS)
    found = keys(s3, pattern)
    assert sorted(found) == sorted(expected)


def test_a_glob_asks_for_what_begins_as_it_says(s3: RecordingS3) -> None:
    s3.keys = Numbered(20_000)
    assert len(keys(s3, "scans/00012*.pdf")) == 1000
    assert sum(request.lists for request in s3.requests) <= 3


def test_a_deep_folder_that_cannot_fit_is_jumped_over(s3: RecordingS3) -> None:
    s3.keys = [*(f"in/a/{n:05}.pdf" for n in range(9000)), "in/b.pdf"]
    assert keys(s3, "in/*.pdf") == ["in/b.pdf"]
    assert sum(request.lists for request in s3.requests) <= 5


@pytest.mark.parametrize("fault", [503, "cut"])
def test_a_listing_that_breaks_off_goes_on_where_it_was(s3: RecordingS3, fault: int | str) -> None:
    s3.keys = Numbered(3000)
    left = {"scans/00000999.pdf": 2}

    def fail(request: object) -> int | str | None:
        token = request.query.get("continuation-token", "")
        left[token] = left.get(token, 0) - 1
        return fault if left[token] >= 0 else None

    s3.fault = fail
    assert keys(s3, "scans") == list(Numbered(3000))


@pytest.mark.parametrize(
    ("fault", "said"), [(503, "answers 503 (3 tries)"), ("cut", "broke off its answer")]
)
def test_a_store_that_stays_away_ends_the_listing_in_one_line(
    s3: RecordingS3, fault: int | str, said: str
) -> None:
    s3.keys = Numbered(3000)
    later = {"continuation-token", "start-after"}
    s3.fault = lambda request: fault if later & set(request.query) else None
    found = listed(s3, "s3://b/scans")
    assert len(list(islice(found, 1000))) == 1000
    with pytest.raises(
        RunError, match=rf"the input broke off: .*{re.escape(said)}; run again later"
    ):
        next(found)


def test_a_key_that_cannot_be_addressed_is_named(s3: RecordingS3) -> None:
    s3.keys = ["in/a//b.pdf"]
    with pytest.raises(InputError, match=r"the key 'in/a//b.pdf' has an empty part"):
        list(listed(s3, "s3://b/in"))
