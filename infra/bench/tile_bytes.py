"""What a page weighs between drawing and model, and whether packing it pays.

    python infra/bench/tile_bytes.py                 # made-up documents
    python infra/bench/tile_bytes.py --pdfs DIR      # the PDFs of a folder

Bytes a page of our uint8 tiles, raw and packed, against the float32 pixels and int64 mask of the
stock processor; CPU milliseconds to pack and unpack; and the wall time of blocks of 16 samples from
one process to another through Ray's object store, raw and packed, in turn (medians).
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pdf2image
import pyarrow as pa
import ray
from documents import make_documents
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

from pipeline.job import Render
from pipeline.models.idefics2.encoder import Idefics2Encoder
from pipeline.records import Image, MediaType
from pipeline.render.renderer import Renderer
from pipeline.runners.transport import pack, unpack

_SAMPLES_PER_BLOCK = 16
_OBJECT_STORE_BYTES = 1 << 30

Tiles = tuple[Image, ...]
Shapes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Weights:
    """Means over pages: bytes, CPU milliseconds, and the share of grey pages."""

    stock_bytes: float
    raw_bytes: float
    packed_bytes: float
    pack_ms: float
    unpack_ms: float
    grey: float


def draw(pdfs: Iterable[Path], stock: Callable[[Path], int]) -> tuple[list[Tiles], list[int]]:
    """Return every page's tiles and its bytes as `stock` makes them, of readable documents."""
    encoder = Idefics2Encoder(longest_edge=980, shortest_edge=378, splitting=True)
    pages: list[Tiles] = []
    stock_bytes: list[int] = []
    with Renderer(Render(), encoder.plan_page) as renderer:
        for pdf in pdfs:
            try:
                n_pages = renderer.open(pdf, MediaType.PDF).n_pages
                drawn = [encoder.encode(renderer.draw(n + 1).image) for n in range(n_pages)]
                stock_bytes.append(stock(pdf))
                pages += drawn
            except Exception as error:  # damaged files make pdf2image raise a dozen kinds
                print(f"left out: {pdf.name}: {type(error).__name__}", file=sys.stderr)
    return pages, stock_bytes


def stock_bytes(pdf: Path) -> int:
    """Bytes of the stock processor's tensors for a document drawn at pdf2image's default."""
    size = {"longest_edge": 980, "shortest_edge": 378}
    processor = Idefics2ImageProcessorPil(do_image_splitting=True, size=size)
    images = pdf2image.convert_from_path(str(pdf))
    tensors = (processor([[image]], return_tensors="np") for image in images)
    return sum(array.nbytes for one in tensors for array in dict(one).values())


def weigh(pages: Sequence[Tiles], stock: Sequence[int], rounds: int) -> Weights:
    packing, unpacking = [], []
    for _ in range(rounds):
        started = time.process_time()
        packed = [pack(tiles) for tiles in pages]
        packing.append(time.process_time() - started)
        buffers = [pa.py_buffer(content) for content in packed]
        started = time.process_time()
        for buffer, tiles in zip(buffers, pages, strict=True):
            unpack(buffer, [tile.shape for tile in tiles])
        unpacking.append(time.process_time() - started)
    return Weights(
        stock_bytes=sum(stock) / len(pages),
        raw_bytes=statistics.mean(sum(tile.nbytes for tile in tiles) for tiles in pages),
        packed_bytes=statistics.mean(map(len, packed)),
        pack_ms=1000 * statistics.median(packing) / len(pages),
        unpack_ms=1000 * statistics.median(unpacking) / len(pages),
        grey=statistics.mean(tiles[0].shape[2] == 1 for tiles in pages),
    )


class Drawing:
    """A process that holds tiles, and hands them out as a table."""

    def __init__(self, block: list[Tiles]) -> None:
        self._block = block

    def hand_out(self, packed: bool) -> pa.Table:
        rows = (
            pack(tiles) if packed else b"".join(tile.tobytes() for tile in tiles)
            for tiles in self._block
        )
        return pa.table({"pixels": pa.array(rows, pa.large_binary())})


class Reading:
    """A process that reads every byte of them once, as a model would."""

    def read(self, table: pa.Table, packed: bool, shapes: list[Shapes]) -> int:
        total = 0
        for scalar, sizes in zip(table.column("pixels"), shapes, strict=True):
            buffer = scalar.as_buffer()
            tiles = unpack(buffer, sizes) if packed else [np.frombuffer(buffer, np.uint8)]
            total += sum(int(tile.max()) for tile in tiles)
        return total


def move(pages: Sequence[Tiles], blocks: int, rounds: int) -> dict[str, float]:
    """Median milliseconds a block, `blocks` on their way at once, raw and packed."""
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    block = [pages[i * len(pages) // _SAMPLES_PER_BLOCK] for i in range(_SAMPLES_PER_BLOCK)]
    shapes = [[tile.shape for tile in tiles] for tiles in block]
    drawing = ray.remote(Drawing).remote(block)
    reading = ray.remote(Reading).remote()
    times: dict[str, list[float]] = {"raw": [], "packed": []}
    for turn in range(rounds + 1):
        for form, walls in times.items():
            packed = form == "packed"
            started = time.perf_counter()
            tables = [drawing.hand_out.remote(packed) for _ in range(blocks)]
            ray.get([reading.read.remote(table, packed, shapes) for table in tables])
            if turn > 0:  # the first starts the processes
                walls.append(1000 * (time.perf_counter() - started) / blocks)
            del tables
    ray.shutdown()
    return {form: statistics.median(walls) for form, walls in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pdfs", type=Path, help="a folder of PDFs")
    parser.add_argument("--limit", type=int, default=40, help="documents of the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as folder:
        if options.pdfs:
            pdfs = sorted(options.pdfs.glob("*.pdf"))[: options.limit]
        else:
            pdfs = make_documents(Path(folder))
        pages, stock = draw(pdfs, stock_bytes)
    weights = weigh(pages, stock, options.rounds)
    one = move(pages, 1, options.rounds)
    many = move(pages, 8, options.rounds)
    if options.json:
        report = {"pages": len(pages), **asdict(weights), "block_ms": one, "block_ms_of_8": many}
        print(json.dumps(report))
        return
    print(f"{len(pages)} pages, {weights.grey:.0%} of them grey")
    print(f"{'':24}{'MB a page':>12}{'times less':>12}")
    for name in ("stock", "raw", "packed"):
        size = getattr(weights, f"{name}_bytes")
        print(f"{name:24}{size / 1e6:12.3f}{weights.stock_bytes / size:11.1f}x")
    print(f"CPU ms a page: pack {weights.pack_ms:.1f}, unpack {weights.unpack_ms:.1f}")
    print("wall ms a block of 16 samples, from tiles to tiles:")
    print(f"    one at a time:  raw {one['raw']:.0f}, packed {one['packed']:.0f}")
    print(f"    8 on their way: raw {many['raw']:.0f}, packed {many['packed']:.0f}")


if __name__ == "__main__":
    main()
