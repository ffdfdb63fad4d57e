"""Documents at web addresses, from a server on this machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import pytest
from http_thread import answering

from pipeline.errors import InputError, ItemError, JobError
from pipeline.job import Job
from pipeline.lake import http
from pipeline.lake.source import Source
from pipeline.records import FailureKind
from pipeline.runners.recipe import prepare
from pipeline.runners.summary import Summary

MIB = 1 << 20
RunJob = Callable[..., Summary]
Rows = Callable[[Path | str, str], list[dict[str, Any]]]


class Served(BaseHTTPRequestHandler):
    """Files of the demo, and answers that go wrong."""

    folder: Path
    renewed = 0
    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:  # what http.server calls
        path, _, query = self.path.partition("?")
        self.asked[path] += 1
        if path.startswith("/to/"):
            self._answer(302, {"Location": query})
        elif path == "/lies":  # says nothing of its length, and never ends
            self._answer(200, {}, b"x" * (2 * MIB))
        elif path == "/announces":
            self._answer(200, {"Content-Length": str(2 * MIB)})
        elif path == "/breaks":
            self._answer(200, {"Content-Length": "100"}, b"%PDF-1.4")
        elif path == "/trickles":
            self._answer(200, {})
            with suppress(ConnectionError):
                for _ in range(100):
                    self.wfile.write(b".")
                    time.sleep(0.01)
        elif path == "/renewed.png":
            Served.renewed += 1
            self._answer(200, {}, self._file("image-01.png") + b"." * Served.renewed)
        elif (self.folder / path[1:]).is_file():
            self._answer(200, {}, self._file(path[1:]))
        else:
            self._answer(404, {})

    def _file(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def _answer(self, code: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # who asked may hang up
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def web(demo: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(Served, "folder", demo / "documents", raising=False)
    monkeypatch.setattr(Served, "renewed", 0)
    monkeypatch.setattr(Served, "asked", Counter())
    with answering(Served) as address:
        yield address


def job(folder: Path, examples: Sequence[object] = (), **sources: object) -> Job:
    return Job.model_validate(
        {
            "input": sources,
            "task": "ocr",
            "examples": examples,
            "model": {"family": "fake", "name": "fake?edge=224"},
            "output": {"uri": str(folder / "out")},
        }
    )


def failure(uri: str, max_bytes: int = MIB) -> tuple[FailureKind, str]:
    with pytest.raises(ItemError) as caught:
        Source(http_bytes=max_bytes).content(uri)
    return caught.value.kind, caught.value.message


def test_documents_at_web_addresses_are_read_like_others(
    web: str, tmp_path: Path, run_job: RunJob, rows: Rows
) -> None:
    manifest = tmp_path / "list.csv"
    names = ["image-01.png?page=1", "gone.pdf", "lies", "renewed.png"]
    manifest.write_text("uri,n\n" + "".join(f"{web}/{name},7\n" for name in names))
    redirected = f"{web}/to/a.pdf?/multipage-02.pdf"
    asked = job(tmp_path, paths=redirected, manifest=str(manifest), http=True, http_max_mb=1)
    run_job(asked)
    found = {row["uri"].removeprefix(web): row for row in rows(asked.output.uri, "documents")}
    assert {name: (row["n_pages"], row["failure_kind"]) for name, row in found.items()} == {
        "/to/a.pdf?/multipage-02.pdf": (3, None),
        "/image-01.png?page=1": (1, None),
        "/gone.pdf": (None, "source_missing"),
        "/lies": (None, "source_too_large"),
        "/renewed.png": (1, "source_changed"),
    }
    assert found["/image-01.png?page=1"]["source"] == {"n": "7"}
    again = run_job(asked)
    assert (again.documents_known, again.pages_reused) == (0, 4)


def test_an_ingest_takes_in_addresses_with_other_content(
    web: str,
    tmp_path: Path,
    demo: Path,
    run_job: RunJob,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Served, "folder", tmp_path)
    first, second = ((demo / "documents" / f"image-0{n}.png").read_bytes() for n in (1, 2))
    for name in ("same", "other", "lost"):
        (tmp_path / f"{name}.png").write_bytes(first)
    names = ("same", "other", "lost", "never")
    asked = job(tmp_path, paths=[f"{web}/{name}.png" for name in names], http=True)
    assert run_job(asked, incremental=True).documents == {"ok": 3, "failed": 1}
    papers = sorted((tmp_path / "out").rglob("*"))
    assert run_job(asked, incremental=True).run_id is None
    assert sorted((tmp_path / "out").rglob("*")) == papers
    (tmp_path / "other.png").write_bytes(second)
    (tmp_path / "lost.png").unlink()
    summary = run_job(asked, incremental=True, limit=1)
    assert (summary.listed["changed"], summary.listed["unchanged"]) == (1, 3)
    states = [row["state"] for row in rows(asked.output.uri, "documents")]
    assert sorted(states) == ["failed", "ok", "ok", "ok"]


def test_a_document_is_fetched_to_be_planned_and_once_to_be_drawn(
    web: str, tmp_path: Path, run_job: RunJob
) -> None:
    asked = job(tmp_path, paths=f"{web}/multipage-02.pdf", http=True)
    of_one = {"unit": "document", "pages_per_sample": 1}
    assert run_job(asked.model_copy(update=of_one)).pages["ok"] == 3
    assert Served.asked == {"/multipage-02.pdf": 2}


def test_what_goes_wrong_is_said_without_the_address(
    web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing, large = FailureKind.SOURCE_MISSING, FailureKind.SOURCE_TOO_LARGE
    assert failure(f"{web}/gone") == (missing, "the server answers 404 Not Found")
    assert failure(f"{web}/lies") == failure(f"{web}/announces")
    assert failure(f"{web}/lies")[0] is large
    assert failure(f"{web}/breaks") == (missing, "the server's answer broke off")
    for target in ("file:///etc/passwd", "ftp://host/a.pdf", "data:,hello"):
        assert failure(f"{web}/to/?{target}")[0] is missing
    for target in (
        "http://user:SECRET@127.0.0.1:1/",
        "http://127.0.0.1:SECRET/",
        f"{web}/to/?/to/",
    ):
        kind, message = failure(f"{web}/to/?{target}")
        assert kind is missing
        assert "SECRET" not in message
    assert failure("http://127.0.0.1:1/") == (
        missing,
        "the server cannot be reached: Connection refused",
    )
    nowhere = (missing, "the server cannot be reached: the address is malformed")
    assert failure("http:///a.pdf") == nowhere
    assert failure("http://127.0.0.1:x/") == (
        missing,
        "fetching it failed: the address is malformed",
    )
    secure = (missing, "the server cannot be reached: no secure connection with it can be made")
    assert failure(web.replace("http", "https")) == secure
    monkeypatch.setattr(http, "_WHOLE_S", 0.05)
    assert failure(f"{web}/trickles") == (missing, "fetching it failed: it takes too long")


def test_web_addresses_are_refused_unless_asked_for(
    web: str, tmp_path: Path, run_job: RunJob
) -> None:
    address = f"{web}/image-01.png"
    with pytest.raises(InputError, match=r"image-01\.png.* input\.http: true"):
        run_job(job(tmp_path, paths=address))
    (tmp_path / "list.csv").write_text(f"uri\n{address}\n")
    with pytest.raises(InputError, match=r"row 1: .* input\.http: true"):
        run_job(job(tmp_path, manifest=str(tmp_path / "list.csv")))
    examples = [{"pages": address, "answer": "Corner Shop"}]
    with pytest.raises(JobError, match=r"examples: .* input\.http: true"):
        prepare(job(tmp_path, examples, paths=str(tmp_path)), "run")


def test_an_examples_page_may_be_at_a_web_address(web: str, tmp_path: Path) -> None:
    examples = [{"pages": f"{web}/image-01.png", "answer": "Corner Shop"}]
    recipe = prepare(job(tmp_path, examples, paths=str(tmp_path), http=True), "run")
    assert len(recipe.examples.tiles) == 1
