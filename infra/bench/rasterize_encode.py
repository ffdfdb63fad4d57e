"""Pages to pixels that Idefics2 can read: our way against pdf2image and the stock processor.

    python infra/bench/rasterize_encode.py                 # made-up documents
    python infra/bench/rasterize_encode.py --pdfs DIR      # the PDFs of a folder

Every way is measured over the same documents, in turn, `--rounds` times; figures are medians.
CPU seconds are those of this process and of all its children, poppler and our renderer included;
start-up is not counted. Everything runs on one thread.

    uint8        Renderer (with the words of the text layer) and Idefics2Encoder: what travels
    packed       the same, and compressed for travel
    float32      uint8, and normalised to float32: the stock processor's product, without padding
    stock        pdf2image at its default 200 dpi, one call a document, and the stock processor
    stock-1960   the same at the size that the model looks at (pdf2image's `size`)
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pdf2image
import torch
from documents import make_documents
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

from pipeline.job import Render
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Placement
from pipeline.models.families import resolve
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.models.idefics2.model import Idefics2Model
from pipeline.records import Image, MediaType
from pipeline.render.renderer import Renderer
from pipeline.runners.transport import pack

_LONGEST_EDGE, _SHORTEST_EDGE = 980, 378

Way = Callable[[Path], int]
"""Does a document, and returns how many pages it had."""


@dataclass(frozen=True)
class Cost:
    """What all pages cost in one round, in seconds."""

    cpu_s: float
    wall_s: float


def cpu_seconds() -> float:
    """CPU time of this process and its descendants, living and waited for; see proc(5)."""
    own = os.times()
    ticks = 0
    for pid in _descendants(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return sum(own[:4]) + ticks / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from _descendants(int(child))


class Ours:
    """Our ways. Close it to end the renderer."""

    def __init__(self) -> None:
        self._encoder = Idefics2Encoder(_LONGEST_EDGE, _SHORTEST_EDGE, splitting=True)
        self._renderer = Renderer(Render(), self._encoder.plan_page)
        settings = ModelSettings(name="nano")
        # Any Idefics2 does: only its normalising is used, which takes tiles of any size.
        self._model = Idefics2Model(resolve(settings), settings, Placement("cpu", threads=1))

    def uint8(self, pdf: Path) -> int:
        return sum(1 for _ in self._pages(pdf))

    def packed(self, pdf: Path) -> int:
        return sum(bool(pack(tiles)) for tiles in self._pages(pdf))

    def float32(self, pdf: Path) -> int:
        n_pages = 0
        for n_pages, tiles in enumerate(self._pages(pdf), 1):  # noqa: B007
            grids = defaultdict(list)
            for tile in tiles:
                grids[tile.shape[:2]].append(tile)
            for grid in grids.values():
                self._model.pixels(grid)
        return n_pages

    def close(self) -> None:
        self._renderer.close()

    def _pages(self, pdf: Path) -> Iterator[tuple[Image, ...]]:
        info = self._renderer.open(pdf, MediaType.PDF)
        for number in range(1, info.n_pages + 1):
            yield self._encoder.encode(self._renderer.draw(number).image)


class Stock:
    """The baseline: pdf2image and the image processor of transformers, a page a call."""

    def __init__(self) -> None:
        self._processor = Idefics2ImageProcessorPil(
            do_image_splitting=True,
            size={"longest_edge": _LONGEST_EDGE, "shortest_edge": _SHORTEST_EDGE},
        )

    def stock(self, pdf: Path) -> int:
        return self._process(pdf)

    def stock_1960(self, pdf: Path) -> int:
        return self._process(pdf, size=2 * _LONGEST_EDGE)

    def _process(self, pdf: Path, **settings: Any) -> int:
        images = pdf2image.convert_from_path(str(pdf), **settings)
        for image in images:
            self._processor([[image]], return_tensors="pt")
        return len(images)


def measure(ways: dict[str, Way], pdfs: Sequence[Path], rounds: int) -> dict[str, list[Cost]]:
    """Run every way over every document, in turn, after one document to warm up."""
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for way in ways.values():
        way(pdfs[0])
    for _ in range(rounds):
        for name, way in ways.items():
            cpu, wall = cpu_seconds(), time.perf_counter()
            for pdf in pdfs:
                way(pdf)
            costs[name].append(Cost(cpu_seconds() - cpu, time.perf_counter() - wall))
    return costs


def readable(pdfs: Iterable[Path], ours: Ours, stock: Stock) -> list[Path]:
    """Keep the documents that both ways can read, so that both do the same work."""
    kept = []
    for pdf in pdfs:
        try:
            if ours.uint8(pdf) == stock.stock(pdf) > 0:
                kept.append(pdf)
        except Exception as error:  # damaged files make pdf2image raise a dozen kinds
            print(f"left out: {pdf.name}: {type(error).__name__}", file=sys.stderr)
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pdfs", type=Path, help="a folder of PDFs")
    parser.add_argument("--limit", type=int, default=40, help="documents of the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)

    ours, stock = Ours(), Stock()
    ways: dict[str, Way] = {
        "uint8": ours.uint8,
        "packed": ours.packed,
        "float32": ours.float32,
        "stock": stock.stock,
        "stock-1960": stock.stock_1960,
    }
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as folder:
        if options.pdfs:
            pdfs = readable(sorted(options.pdfs.glob("*.pdf"))[: options.limit], ours, stock)
        else:
            pdfs = make_documents(Path(folder))
        n_pages = sum(ours.uint8(pdf) for pdf in pdfs)
        costs = measure(ways, pdfs, options.rounds)
    ours.close()
    print(_report(n_pages, costs) if options.json else _table(len(pdfs), n_pages, costs))


def _median_ms(rounds: list[Cost], n_pages: int) -> tuple[float, float]:
    """Return CPU and wall milliseconds a page."""
    cpu = statistics.median(cost.cpu_s for cost in rounds)
    wall = statistics.median(cost.wall_s for cost in rounds)
    return 1000 * cpu / n_pages, 1000 * wall / n_pages


def _report(n_pages: int, costs: dict[str, list[Cost]]) -> str:
    medians = {name: _median_ms(rounds, n_pages) for name, rounds in costs.items()}
    ways = {name: {"cpu_ms": cpu, "wall_ms": wall} for name, (cpu, wall) in medians.items()}
    return json.dumps({"pages": n_pages, "ways": ways})


def _table(n_documents: int, n_pages: int, costs: dict[str, list[Cost]]) -> str:
    stock, _ = _median_ms(costs["stock"], n_pages)
    lines = [
        f"{n_documents} documents, {n_pages} pages",
        f"{'':12}{'CPU ms/page':>14}{'wall ms/page':>14}{'pages/s/core':>14}{'to stock':>10}",
    ]
    for name, rounds in costs.items():
        cpu, wall = _median_ms(rounds, n_pages)
        lines.append(f"{name:12}{cpu:14.1f}{wall:14.1f}{1000 / cpu:14.1f}{stock / cpu:9.2f}x")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
