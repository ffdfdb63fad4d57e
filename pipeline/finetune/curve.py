"""The record of a training as it goes: lines on the terminal, and `curve.jsonl`."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

FILE = "curve.jsonl"
_REPORT_SECONDS = 20.0
_LOOK_SECONDS = 2.0


class Curve:
    """Writes a line a step, and tells people of some of them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._console = Console(stderr=True, emoji=False, highlight=False)
        self._told = float("-inf")

    def say(self, text: str) -> None:
        """Print a line for people."""
        self._console.print(text, markup=False, soft_wrap=True)

    def go_on_from(self, step: int) -> None:
        """Cut off what was written after the checkpoint that the training goes on from."""
        if self._file.is_file():
            lines = self._file.read_text(encoding="utf-8").splitlines(keepends=True)
            # The last one may be half written.
            kept = [ln for ln in lines if ln.endswith("\n") and json.loads(ln)["step"] <= step]
            self._file.write_text("".join(kept), encoding="utf-8")

    def step(self, step: int, steps: int, values: Mapping[str, float]) -> None:
        """Write down how a step went."""
        self._write("step", step, values)
        now = time.monotonic()
        if now - self._told > _REPORT_SECONDS or step == steps:
            self._told = now
            self.say(f"{step / steps:4.0%} step {step:,} of {steps:,}: {shown(values)}")

    def measured(self, step: int, values: Mapping[str, float]) -> None:
        """Write down and tell what was measured."""
        self._write("measured", step, values)
        self.say(f"     measured after step {step:,}: {shown(values)}")

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        line = {"kind": kind, "step": step, **{k: float(f"{v:.6g}") for k, v in values.items()}}
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def shown(values: Mapping[str, float]) -> str:
    """Return figures as people read them."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())


@contextmanager
def following(folder: Path) -> Iterator[None]:
    """Tell people meanwhile of what workers of a training in `folder` write down."""
    done = threading.Event()
    teller = threading.Thread(target=_follow, args=(folder, done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _follow(folder: Path, done: threading.Event) -> None:
    curve, path = Curve(folder), folder / FILE
    place = path.stat().st_size if path.is_file() else 0
    told = float("-inf")
    while True:
        last = done.wait(_LOOK_SECONDS)
        for line in _lines(path, place):
            place += len(line)
            values = json.loads(line)
            kind, step = values.pop("kind"), values.pop("step")
            if kind == "measured" or time.monotonic() - told > _REPORT_SECONDS:
                told = time.monotonic()
                curve.say(f"{kind} {step:,}: {shown(values)}")
        if last:
            return


def _lines(path: Path, place: int) -> list[bytes]:
    """Return the whole lines that a file has behind a place."""
    try:
        with path.open("rb") as file:
            file.seek(place)
            return [line for line in file if line.endswith(b"\n")]
    except FileNotFoundError:
        return []
