"""The record of a training as it goes: lines on the terminal, `curve.jsonl`, and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from pipeline.pretrain.checkpoint import Position

FILE, PLOT = "curve.jsonl", "curve.svg"


class Curve:
    """Averages what the steps tell, and writes it down every so often."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._console = Console(stderr=True, emoji=False, highlight=False)
        self._plotless = False
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._last = (0.0, 0)

    def say(self, text: str) -> None:
        """Print a line for people."""
        self._console.print(text, markup=False, soft_wrap=True)

    def go_on_from(self, position: Position) -> None:
        """Cut off what was written after the checkpoint that the training goes on from."""
        path = self._folder / FILE
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["documents"] <= position.documents]
            path.write_text("".join(kept), encoding="utf-8")
        self._last = (position.seconds, position.documents)

    def note(self, parts: Mapping[str, Tensor], norm: Tensor) -> None:
        """Take in one step."""
        for name, value in {**parts, "gradient": norm}.items():
            # Left on the device: to ask for numbers every step would make it wait.
            self._sums[name] = value + self._sums.get(name, 0.0)
            self._counts[name] = self._counts.get(name, 0) + 1

    def report(self, position: Position, stage: str, progress: float) -> None:
        """Print and write the averages since the last report."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self._sums.clear()
        self._counts.clear()
        seconds, documents = self._last
        speed = (position.documents - documents) / max(1e-9, position.seconds - seconds)
        self._last = (position.seconds, position.documents)
        self._write("steps", position, {"stage": stage, "documents_per_second": speed, **means})
        self.say(
            f"{min(progress, 1):4.0%} {position.seconds / 60:6.1f} min "
            f"{position.documents:>9,} documents {speed:5.1f}/s  {stage}: {_shown(means)}"
        )

    def validated(self, position: Position, scores: Mapping[str, float]) -> None:
        """Print and write what a validation found, and draw the curves anew."""
        self._write("validation", position, scores)
        self.say(f"     validation after {position.documents:,} documents: {_shown(scores)}")
        if find_spec("matplotlib") is not None:
            plot(self._folder / FILE, self._folder / PLOT)
        elif not self._plotless:
            self._plotless = True
            self.say(f"     no {PLOT}: that needs matplotlib; pip install pagelake[training]")

    def _write(self, kind: str, position: Position, values: Mapping[str, Any]) -> None:
        line = {
            "kind": kind,
            "minutes": round(position.seconds / 60, 3),
            "documents": position.documents,
            **{k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()},
        }
        with (self._folder / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _shown(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in values.items())


def plot(record: Path, picture: Path) -> None:
    """Draw a `curve.jsonl`: shares of right answers in training above, in validation below.

    Needs matplotlib; the picture's suffix says its format.
    """
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(8, 8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [line for line in lines if line["kind"] == "steps"]
    _draw(above, steps, [n for n in _names(steps) if n.endswith("_right")])
    checks = [line for line in lines if line["kind"] == "validation"]
    _draw(below, checks, [name for name in _names(checks) if not name.endswith("CER")])
    above.set_title("in training: F1 of characters, share of pointers and tokens right")
    below.set_title("share right in validation, on documents never seen")
    below.set_xlabel("documents seen")
    figure.savefig(picture)


def _names(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    plain = {"kind", "minutes", "documents", "stage", "documents_per_second"}
    return list(dict.fromkeys(name for line in lines for name in line if name not in plain))


def _draw(axes: Any, lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    for name in names:
        told = [line for line in lines if name in line]
        axes.plot(
            [line["documents"] for line in told],
            [line[name] for line in told],
            label=name.removesuffix("_right"),
            marker="." if len(told) < 50 else None,
        )
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    if names:
        axes.legend(fontsize="small", ncols=2)
