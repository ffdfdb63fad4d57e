"""The ways a PDF is tried in: who opens it, who draws it, and what all tries may cost together."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pdf2image import pdfinfo_from_path
from pdf_builder import build_pages
from poison_pdf import PASSWORD, cut_in_its_trailer, deep_page_tree, encrypted, good, many_words

from pipeline.errors import ItemError
from pipeline.records import FailureKind
from pipeline.render import poppler
from pipeline.render.messages import Measure, Measured, Open, Opened
from pipeline.render.process import RenderProcess
from pipeline.render.shared import SharedFile


def test_poppler_opens_and_draws_what_pdfium_cannot_open(make_renderer):
    with make_renderer() as renderer:
        renderer.open(good())
        by_pdfium = renderer.draw(1)
        assert renderer.open(cut_in_its_trailer()).n_pages == 1
        page = renderer.draw(1)
        assert page.image.shape == by_pdfium.image.shape
        assert page.image.min() < 50
        assert page.words == ()


def test_poppler_measures_what_pdfium_cannot(make_renderer):
    with make_renderer(cpu_s=5) as renderer:
        assert renderer.open(deep_page_tree()).n_pages == 1
        assert renderer.draw(1).image.shape == (404, 408, 1)


def test_poppler_alone_honours_crop_and_rotation(make_renderer):
    box = b"/MediaBox [0 0 300 300] /CropBox [100 50 200 250] /Rotate 90"
    whole = build_pages((box, b"100 50 20 20 re f"))
    with make_renderer() as renderer:
        renderer.open(whole.partition(b" >>\nstartxref")[0])
        page = renderer.draw(1)
    assert page.rotation == 90
    assert page.image.shape == (204, 408, 1)
    assert page.image[2:38, 2:38].max() < 10
    assert page.image[45:].min() == 255


def test_poppler_is_asked_about_pages_of_their_own_size(settings, tmp_path):
    path = tmp_path / "two.pdf"
    path.write_bytes(
        build_pages((b"/MediaBox [0 0 100 50]", b""), (b"/MediaBox [0 0 70 90] /Rotate 270", b""))
    )
    canvas = SharedFile("canvas")
    process = RenderProcess(canvas.path, settings())
    request = Open(str(path), "application/pdf", None, "poppler", False)
    assert process.ask(request, Opened, process.budget()) == Opened(2, False)
    sizes = [process.ask(Measure(n), Measured, process.budget()) for n in (1, 2, 1)]
    assert sizes == [Measured(100, 50, True), Measured(90, 70, True), Measured(100, 50, True)]
    process.kill()
    canvas.close()


def test_when_all_fails_the_first_failure_is_told(make_renderer):
    with make_renderer() as renderer:
        with pytest.raises(ItemError, match="pdfium cannot read") as caught:
            renderer.open(b"%PDF-1.7\nno more")
        assert caught.value.kind is FailureKind.UNREADABLE


def test_a_page_is_not_lost_for_its_text_layer(make_renderer):
    with make_renderer(cpu_s=1, memory_mb=256) as renderer:
        renderer.open(many_words())
        page = renderer.draw(1)
        assert page.image.min() == 0
        assert page.words == ()
        renderer.open(good())
        assert [word.text for word in renderer.draw(1).words] == ["Hello"]


def test_words_are_bounded(make_renderer):
    line = b"0 -0.19 Td (" + b"aaaaaaaaa " * 100 + b") Tj\n"
    content = b"BT /F1 0.2 Tf 5 195 Td\n" + line * 210 + b"ET"
    with make_renderer(cpu_s=10) as renderer:
        renderer.open(build_pages((b"/MediaBox [0 0 200 200]", content)))
        words = renderer.draw(1).words
    assert 19_000 < len(words) <= 20_000


def test_the_requests_of_a_try_share_its_budget(settings, tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(good())
    canvas = SharedFile("canvas")
    process = RenderProcess(canvas.path, settings())
    budget = process.budget()
    process.ask(Open(str(path), "application/pdf", None, "poppler", False), Opened, budget)
    after_opening = budget.wall_s
    process.ask(Measure(1), Measured, budget)
    assert budget.wall_s < after_opening < settings().wall_s
    assert budget.cpu_s <= settings().cpu_s
    process.kill()
    canvas.close()


@pytest.mark.parametrize(
    "reply",
    [
        b'["Opened", {"n_pages": 1, "has_forms": false}]',
        b'["Failed", {"kind": "bored", "message": ""}]',
        b'["Measured", {"depth": 1}]',
        b'["Measured", {"width": "wide", "height": 1, "scalable": true}]',
        b"[" * 100_000,
        b"nonsense",
        b"7",
    ],
)
def test_a_reply_that_makes_no_sense_costs_the_page_only(settings, reply):
    canvas = SharedFile("canvas")
    process = RenderProcess(canvas.path, settings())
    process._replies += reply + b"\n"
    with pytest.raises(ItemError) as caught:
        process.ask(Measure(1), Measured, process.budget())
    assert caught.value.kind is FailureKind.RENDER_CRASH
    assert not process.alive
    canvas.close()


@pytest.mark.parametrize("name", ["pdfium", "poppler"])
@pytest.mark.parametrize("file", ["-v.pdf", "two\nlines $(id).pdf", "\x1b[1m'\".pdf", "\udcff.pdf"])
def test_no_file_name_is_taken_for_more_than_a_name(
    make_renderer, tmp_path, monkeypatch, name, file
):
    monkeypatch.chdir(tmp_path)
    Path(file).write_bytes(good())
    with make_renderer(renderer=name) as renderer:
        renderer.open(Path(file))
        assert renderer.draw(1).image.min() < 50
        Path(file).write_bytes(b"%PDF-1.7\nno more")
        with pytest.raises(ItemError) as caught:
            renderer.open(Path(file))
    assert caught.value.message.isprintable()
    assert str(tmp_path) not in caught.value.message


def test_a_named_pipe_is_no_document(renderer, tmp_path):
    os.mkfifo(tmp_path / "a.pdf")
    with pytest.raises(ItemError) as caught:
        renderer.open(tmp_path / "a.pdf")
    assert caught.value.kind is FailureKind.SOURCE_MISSING


def test_a_failure_is_told_in_one_printable_line():
    error = ItemError(FailureKind.UNREADABLE, "bad\n\x1b[31m file \udcff\u202e" + "x" * 999)
    assert error.message.startswith("bad [31m file x")
    assert error.message.isprintable()
    assert len(error.message) == 300


def test_poppler_is_told_the_password_by_documents_that_ask_for_one_only(monkeypatch, tmp_path):
    told = []

    def look(path, userpw=None, **options):
        told.append(userpw)
        return pdfinfo_from_path(path, userpw=userpw, **options)

    monkeypatch.setattr(poppler, "pdfinfo_from_path", look)
    path = tmp_path / "a.pdf"
    path.write_bytes(cut_in_its_trailer())
    assert poppler.PopplerDocument(str(path), PASSWORD).n_pages == 1
    assert told == [None]
    path.write_bytes(encrypted(PASSWORD)())
    assert poppler.PopplerDocument(str(path), PASSWORD).n_pages == 1
    assert told == [None, None, PASSWORD]
