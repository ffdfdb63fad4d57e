"""What a bad page costs: itself, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.errors import ItemError
from pipeline.records import FailureKind
from pipeline.render.process import RenderProcess
from pipeline.render.shared import SharedFile

PAGE = (b"/MediaBox [0 0 200 200]", b"BT /F1 40 Tf 20 80 Td (Hello) Tj ET")


@pytest.fixture
def no_poppler(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))


def render_processes() -> list[psutil.Process]:
    """The processes below this one that render, and what those have started."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # gone, or going
            if "pipeline.render.child" in child.cmdline():
                found += [child, *child.children(recursive=True)]
    return found


@pytest.mark.usefixtures("no_poppler")
def test_hanging_page_ends_by_its_cpu_time_and_its_neighbours_draw(make_renderer, hanging_pdf):
    with make_renderer(cpu_s=0.5) as renderer:
        renderer.open(hanging_pdf)
        assert [word.text for word in renderer.draw(1).words] == ["Hello"]
        start = time.monotonic()
        with pytest.raises(ItemError, match="CPU time") as caught:
            renderer.draw(2)
        assert time.monotonic() - start < 10
        assert caught.value.kind is FailureKind.RENDER_TIMEOUT
        assert [word.text for word in renderer.draw(3).words] == ["Hello"]


def test_forms_that_hang_are_left_out(make_renderer, hanging_forms):
    with make_renderer(cpu_s=0.5) as renderer:
        assert renderer.open(hanging_forms).n_pages == 1
        (process,) = render_processes()
        assert [word.text for word in renderer.draw(1).words] == ["Hello"]
        assert render_processes() == [process]


@pytest.mark.parametrize("name", ["pdfium", "poppler"])
def test_hanging_poppler_ends_by_its_cpu_time_and_leaves_nothing_running(
    make_renderer, hanging_pdf, name
):
    with make_renderer(renderer=name, cpu_s=0.5) as renderer:
        renderer.open(hanging_pdf)
        with pytest.raises(ItemError) as caught:
            renderer.draw(2)
        assert caught.value.kind is FailureKind.RENDER_TIMEOUT
        assert not render_processes()
        assert renderer.draw(3).image.min() < 100


@pytest.mark.usefixtures("no_poppler")
def test_wall_clock_ends_a_page_too(make_renderer, hanging_pdf):
    with make_renderer(cpu_s=30, wall_s=0.5) as renderer:
        renderer.open(hanging_pdf)
        with pytest.raises(ItemError, match=r"longer than 0\.5 s") as caught:
            renderer.draw(2)
        assert caught.value.kind is FailureKind.RENDER_TIMEOUT


def test_killed_between_pages_it_is_started_again(make_renderer, pdf_of):
    with make_renderer() as renderer:
        renderer.open(pdf_of(PAGE, PAGE))
        first = renderer.draw(1)
        (process,) = render_processes()
        process.kill()
        process.wait(5)
        assert (renderer.draw(2).image == first.image).all()


@pytest.mark.usefixtures("no_poppler")
def test_many_crashes_leave_no_process_and_no_open_file(make_renderer, hanging_pdf):
    with make_renderer(cpu_s=0.1) as renderer:
        renderer.open(hanging_pdf)
        renderer.draw(1)
        before = psutil.Process().num_fds()
        for _ in range(5):
            with pytest.raises(ItemError):
                renderer.draw(2)
            renderer.draw(1)
        assert psutil.Process().num_fds() == before
        assert len(render_processes()) == 1
    assert not render_processes()


def test_close_frees_every_file_and_process(make_renderer, pdf_of):
    before = psutil.Process().num_fds()
    renderer = make_renderer()
    renderer.open(pdf_of(PAGE))
    renderer.draw(1)
    renderer.close()
    renderer.close()
    assert psutil.Process().num_fds() == before
    assert not render_processes()


def test_it_dies_with_its_parent_even_while_it_hangs(hanging_pdf, tmp_path):
    document = tmp_path / "hang.pdf"
    document.write_bytes(hanging_pdf)
    owner = subprocess.Popen(
        [sys.executable, "-c", HANG, str(document)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with owner:
        assert owner.stdout.readline() == b"open\n"
        (child,) = psutil.Process(owner.pid).children()
        time.sleep(0.3)
        owner.send_signal(signal.SIGKILL)
    child.wait(timeout=5)


HANG = """
import sys
from pathlib import Path

from types import SimpleNamespace
from pipeline.models.base import PagePlan
from pipeline.render.renderer import Renderer

settings = SimpleNamespace(renderer="pdfium", cpu_s=60, wall_s=60, memory_mb=4096)
with Renderer(settings, lambda width, height, scalable: PagePlan(9, 9, 9, 9)) as renderer:
    renderer.open(Path(sys.argv[1]))
    print("open", flush=True)
    renderer.draw(2)
"""


def test_it_loads_only_what_it_needs_and_its_memory_is_limited(settings):
    canvas = SharedFile("canvas")
    process = RenderProcess(canvas.path, settings(memory_mb=100))
    (child,) = render_processes()
    limit, _ = child.rlimit(psutil.RLIMIT_AS)
    assert abs(limit - child.memory_info().vms - (100 << 20)) < 20 << 20
    assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
    loaded = Path(f"/proc/{child.pid}/maps").read_text()
    assert "pdfium" in loaded
    assert not any(name in loaded for name in ("torch", "pyarrow", "ray/"))
    process.kill()
    canvas.close()


def test_pages_are_drawn_in_flat_memory(make_renderer, pdf_of):
    with make_renderer() as renderer:
        renderer.open(pdf_of(*[PAGE] * 600))
        (process,) = (renderer.draw(1), render_processes())[1]
        for number in range(2, 51):
            renderer.draw(number)
        early = process.memory_info().rss
        for number in range(51, 601):
            renderer.draw(number)
        assert render_processes() == [process]
        assert process.memory_info().rss - early < 8 << 20
