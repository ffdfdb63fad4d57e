"""What a measurement is asked for. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pipeline.errors import JobError

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

SHAPES = ("tiny", "idefics2-8b")
ANSWER_TOKENS = 300
_PICTURES = (".svg", ".png", ".pdf")


@dataclass(frozen=True, slots=True)
class Options:
    """`model` is a name as in a job file, nano if None; `random_weights` a shape in its place.

    With random weights answers have forced lengths, `answer_tokens` on average.
    """

    model: str | None = None
    random_weights: str | None = None
    samples: int = 256
    rounds: int = 5
    slots: int = 64
    threads: int = 1
    seed: int = 0
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Dtype = "auto"
    splitting: bool | None = None
    answer_tokens: int | None = None
    fixed_steps: bool = False
    plot: Path | None = None

    def check(self) -> None:
        """Raise JobError if the options do not go together."""
        if self.random_weights is None:
            if self.answer_tokens is not None:
                raise JobError(
                    "--answer-tokens is for --random-weights; a model with a grammar ends by itself"
                )
        elif self.random_weights not in SHAPES:
            raise JobError(
                f"--random-weights: there is no shape '{self.random_weights}'; "
                f"there are {', '.join(SHAPES)}"
            )
        elif self.model is not None:
            raise JobError("--model and --random-weights: choose one of them")
        if self.plot is not None:
            _check_plot(self.plot)


def _check_plot(path: Path) -> None:
    if path.suffix not in _PICTURES:
        raise JobError(f"--plot: '{path}' should end in {', '.join(_PICTURES)}")
    if not path.absolute().parent.is_dir():
        raise JobError(f"--plot: there is no folder '{path.parent}'")
    if find_spec("matplotlib") is None:
        raise JobError("--plot needs matplotlib; pip install pagelake[training]")
