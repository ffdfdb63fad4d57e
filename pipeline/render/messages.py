"""What the parent and the render process say to each other: one JSON line a message."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

RendererName = Literal["pdfium", "poppler"]


@dataclass(frozen=True)
class Ready:
    """The process is up, and `address_space` bytes is the most it may map (None: no limit here).

    `filtered` tells whether its system calls are too; see `sandbox`.
    """

    address_space: int | None
    filtered: bool


@dataclass(frozen=True)
class Open:
    """Open the file at `path`, in place of the document open before. Answered by `Opened`.

    `reader` opens, counts and measures a PDF. Only pdfium brings up `forms`, and reads text.
    """

    path: str
    media_type: str
    password: str | None
    reader: RendererName
    forms: bool


@dataclass(frozen=True)
class Opened:
    """`has_forms` tells whether opening without forms would make a difference."""

    n_pages: int
    has_forms: bool


@dataclass(frozen=True)
class Measure:
    """Ask for the size of a page (from 1). Answered by `Measured`."""

    number: int


@dataclass(frozen=True)
class Measured:
    """The size as displayed, in points if `scalable`, else in pixels."""

    width: float
    height: float
    scalable: bool


@dataclass(frozen=True)
class Draw:
    """Draw a page onto the shared canvas. Answered by `Drawn`, and then by `TextLayer`.

    `renderer` is for the pages of a PDF that pdfium opened.
    """

    number: int
    width: int
    height: int
    canvas_width: int
    canvas_height: int
    renderer: RendererName


@dataclass(frozen=True)
class Drawn:
    """The canvas is filled, and stays so until the next `Draw`."""

    grey: bool
    rotation: int


@dataclass(frozen=True)
class TextLayer:
    """What the page just drawn says. `words` are the fields of `records.Word`, in its order."""

    words: list[tuple[str, float, float, float, float]]


@dataclass(frozen=True)
class Failed:
    """The request could not be met, and the process lives on. `kind` is a `FailureKind`."""

    kind: str
    message: str


Request = Open | Measure | Draw
Reply = Ready | Opened | Measured | Drawn | TextLayer | Failed

_BY_NAME = {
    kind.__name__: kind
    for kind in (Ready, Open, Opened, Measure, Measured, Draw, Drawn, TextLayer, Failed)
}


def encode(message: Request | Reply) -> bytes:
    """A message as one line of ASCII JSON: its name and its fields."""
    return json.dumps([type(message).__name__, vars(message)]).encode("ascii") + b"\n"


def decode(line: bytes) -> Request | Reply:
    """The inverse of `encode`, of what a process that one trusts has said."""
    name, fields = json.loads(line)
    return _BY_NAME[name](**fields)
