"""Pages drawn and encoded as a run would, once: they are kept on disk while training goes on."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import fs

from pipeline.errors import InputError, ItemError, one_line
from pipeline.finetune.data import Row
from pipeline.job import Job
from pipeline.lake.entry import modified_text
from pipeline.lake.source import Source
from pipeline.lake.stores import Stores
from pipeline.models.base import PageEncoder
from pipeline.printed import printed_text
from pipeline.records import Tiles
from pipeline.render.renderer import Renderer
from pipeline.selection import parse_pages
from pipeline.tiles import Shapes, tile_shapes


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row's pages: `shapes` of their tiles, the `text` that they print, the `file` of tiles.

    `n_pages` counts the pages of the whole document.
    """

    file: Path
    n_pages: int
    numbers: tuple[int, ...]
    shapes: Shapes
    text: str

    @property
    def whole(self) -> bool:
        """True if the pages are the whole document."""
        return len(self.numbers) == self.n_pages


class Studio:
    """Draws rows' pages, and keeps them in `folder`. Owns a renderer; leave it to end that.

    Without `images` only the pages' text is kept.
    """

    def __init__(self, job: Job, encoder: PageEncoder, folder: Path, *, images: bool) -> None:
        self._job, self._encoder, self._images = job, encoder, images
        self._folder = folder
        self._renderer: Renderer | None = None

    def draw(self, row: Row) -> Drawn:
        """Return a row's pages, drawn now if they have not been before.

        Raises
        ------
        InputError
            If a page cannot be drawn, or there are too many or none; the message names the row.
        """
        file = self._folder / f"{self._key(row)}.tiles"
        if not file.is_file():
            self._draw(row, file)
        about, tiles = _load(file)
        return Drawn(
            file, about["n_pages"], tuple(about["numbers"]), tile_shapes(tiles), about["text"]
        )

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _key(self, row: Row) -> str:
        """What tells drawings apart: another file, other pages, or other settings."""
        try:
            store, path = Stores().filesystem(row.uri)
            info = store.get_file_info(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{row.where}: {row.uri}: {one_line(error)}") from error
        if info.type != fs.FileType.File:
            raise InputError(f"{row.where}: {row.uri}: there is no such file")
        parts = [row.uri, info.size, modified_text(info), row.pages]
        parts += [repr(self._encoder), self._job.render.renderer, self._images]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def _draw(self, row: Row, file: Path) -> None:
        if self._renderer is None:
            self._renderer = Renderer(self._job.render, self._encoder.plan_page)
        try:
            n_pages = self._renderer.open(Source().content(row.uri)).n_pages
            numbers = self._numbers(row, n_pages)
            pages = [self._renderer.draw(number) for number in numbers]
            tiles = [self._encoder.encode(page.image) for page in pages] if self._images else []
        except (ItemError, MemoryError) as error:
            raise InputError(f"{row.where}: {row.uri}: {one_line(error)}") from error
        text = printed_text([page.words for page in pages])
        _save(file, {"n_pages": n_pages, "numbers": numbers, "text": text}, tiles)

    def _numbers(self, row: Row, n_pages: int) -> tuple[int, ...]:
        try:
            wanted = parse_pages(row.pages or "1-")
        except ValueError as error:
            raise InputError(f"{row.where}: pages: {error}") from None
        numbers = wanted.select(n_pages)
        if not numbers:
            raise InputError(f"{row.where}: {row.uri} has {n_pages} pages, and none of {row.pages}")
        if self._job.unit == "page" and len(numbers) > 1:
            raise InputError(
                f"{row.where}: shows {len(numbers)} pages, and unit is page; name one of them in "
                "pages, or set unit: document"
            )
        if len(numbers) > self._job.pages_per_sample and self._job.unit == "document":
            raise InputError(
                f"{row.where}: shows {len(numbers)} pages; name fewer, or raise pages_per_sample"
            )
        return numbers


def load_tiles(file: Path) -> Tiles:
    """Read the tiles of a drawn row."""
    return _load(file)[1]


def _save(file: Path, about: dict[str, object], tiles: Tiles) -> None:
    arrays = {f"{i}.{j}": tile for i, page in enumerate(tiles) for j, tile in enumerate(page)}
    about = {**about, "tiles": [len(page) for page in tiles]}
    packed = BytesIO()
    np.savez(packed, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
    fresh = file.with_suffix(f".{os.getpid()}.new")  # workers may draw the same row
    with pa.output_stream(fresh, compression="zstd") as stream:
        stream.write(packed.getbuffer())
    fresh.replace(file)


def _load(file: Path) -> tuple[dict[str, Any], Tiles]:
    with pa.input_stream(file, compression="zstd") as stream:
        packed = BytesIO(stream.read())
    with np.load(packed, allow_pickle=False) as arrays:
        about = json.loads(str(arrays["about"]))
        tiles: Tiles = [
            [arrays[f"{i}.{j}"] for j in range(count)] for i, count in enumerate(about["tiles"])
        ]
    return about, tiles
