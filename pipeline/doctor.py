"""What this machine offers a run: `pagelake doctor`."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.errors import RunError
from pipeline.job import Render
from pipeline.model_settings import Model
from pipeline.models.base import PagePlan
from pipeline.models.devices import describe_device
from pipeline.models.families import resolve
from pipeline.render.renderer import Renderer

_CORE = ("ray", "torch", "transformers", "pyarrow", "pypdfium2", "pillow", "llguidance")
_OPTIONAL = {
    "flash-attn": "faster attention on GPUs; pip install pagelake[gpu]",
    "bitsandbytes": "quantized weights; pip install pagelake[quantization]",
}
_POPPLER = ("pdftoppm", "pdfinfo")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. What is not `required` may be missing."""

    name: str
    text: str
    good: bool
    required: bool = True


def examine() -> list[Finding]:
    """Look at Python, packages, Poppler, the device, memory and the bundled model."""
    return [
        Finding("python", sys.version.split()[0], (3, 11) <= sys.version_info < (3, 14)),
        *(_package(name) for name in _CORE),
        *(_package(name, hint) for name, hint in _OPTIONAL.items()),
        _poppler(),
        _renderer(),
        Finding("device", describe_device(), good=True),
        _shared_memory(),
        _bundled_model(),
    ]


def _package(name: str, hint: str | None = None) -> Finding:
    try:
        return Finding(name, version(name), good=True, required=hint is None)
    except PackageNotFoundError:
        return Finding(name, f"not installed ({hint or 'reinstall pagelake'})", False, hint is None)


def _poppler() -> Finding:
    missing = [program for program in _POPPLER if shutil.which(program) is None]
    text = (
        f"{', '.join(missing)} not found; pages that pdfium cannot draw get no second try, and "
        "render.renderer: poppler does not work (Debian: apt-get install poppler-utils)"
        if missing
        else "found; it serves as the second renderer"
    )
    return Finding("poppler", text, good=not missing, required=False)


def _renderer() -> Finding:
    try:
        with Renderer(Render(), lambda *_: PagePlan(1, 1, 1, 1)) as renderer:
            filtered = renderer.filtered
    except RunError as error:
        return Finding("renderer", str(error), good=False)
    text = (
        "starts; its process can read files, and has no network and no way to write"
        if filtered
        else "starts; its process has limits of time and memory, but its system calls cannot be "
        "filtered here: read strangers' files in a container"
    )
    return Finding("renderer", text, good=filtered, required=False)


def _shared_memory() -> Finding:
    place = Path("/dev/shm")  # noqa: S108
    if not place.is_dir():
        return Finding("shared memory", "no /dev/shm; Ray uses a folder", False, required=False)
    size = os.statvfs(place)
    gib = size.f_bavail * size.f_frsize / 2**30
    return Finding("shared memory", f"{gib:.1f} GiB free in /dev/shm", gib >= 1, required=False)


def _bundled_model() -> Finding:
    checkpoint = resolve(Model(name="nano"))
    return Finding("bundled model", f"nano, revision {checkpoint.revision[:12]}", good=True)
