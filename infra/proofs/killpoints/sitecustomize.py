"""Kills the process that comes to a point of the commit protocol, once.

Python imports this by itself where the folder is on PYTHONPATH. PAGELAKE_KILL_AT names the point
and which time it is reached, such as `before-commit:3`; PAGELAKE_KILL_MARK a folder in which all
processes of a run count together.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def reached(point: str) -> None:
    """Kill this process if the run is to be killed at this point, and has come to it this time."""
    wanted, _, number = os.environ["PAGELAKE_KILL_AT"].partition(":")
    if point != wanted:
        return
    marks = Path(os.environ["PAGELAKE_KILL_MARK"])
    for count in range(1, int(number) + 1):
        try:
            (marks / f"{point}-{count}").touch(exist_ok=False)
        except FileExistsError:
            continue
        if count == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return


def _patch_layout(module: ModuleType) -> None:
    layout = module.Layout
    write, write_bytes, delete = layout.write, layout.write_bytes, layout.delete

    def writing(self: Any, name: str) -> Any:
        if name.startswith("pages/"):
            reached("before-data")
        if name.startswith("documents/"):
            reached("before-documents")
        return write(self, name)

    def writing_bytes(self: Any, name: str, data: bytes) -> None:
        point = (
            "commit" if name.startswith("_pagelake/commits/") and name.endswith(".json")
            else "publish" if name == "_pagelake/manifest.json"
            else None
        )  # fmt: skip
        if point is None:
            write_bytes(self, name, data)
            return
        reached(f"before-{point}")
        write_bytes(self, name, data)
        reached(f"after-{point}")

    def deleting(self: Any, name: str) -> None:
        if name.startswith(("pages/", "documents/")):
            reached("during-sweep")
        delete(self, name)

    layout.write, layout.write_bytes, layout.delete = writing, writing_bytes, deleting


_PATCHES: dict[str, Callable[[ModuleType], None]] = {"pipeline.lake.layout": _patch_layout}


class _Finder(importlib.abc.MetaPathFinder):
    """Patches a module right after it has been loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name not in _PATCHES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def patched(module: ModuleType) -> None:
            execute(module)
            _PATCHES[name](module)

        spec.loader.exec_module = patched  # type: ignore[method-assign]
        return spec


if "PAGELAKE_KILL_AT" in os.environ:
    sys.meta_path.insert(0, _Finder())
