"""The training's state on disk: what a stopped training goes on from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import JobError

FILE = "checkpoint.pt"


@dataclass(slots=True)
class Position:
    """How far the training is: `seconds` of training, `documents` seen by all processes.

    `stage_steps` counts from the stage's start, `feeds` the feeds opened so far.
    """

    seconds: float = 0.0
    documents: int = 0
    steps: int = 0
    stage: int = -1
    stage_steps: int = 0
    feeds: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Position, weights with the training's heads, and the optimisers' state.

    `architecture` is what the weights were made for, as JSON.
    """

    architecture: str
    position: Position
    weights: dict[str, Any]
    optimizers: list[dict[str, Any]]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; a crash leaves the old one or the new one, whole."""
    fresh = folder / (FILE + ".new")
    torch.save(
        {
            "architecture": checkpoint.architecture,
            "position": asdict(checkpoint.position),
            "weights": checkpoint.weights,
            "optimizers": checkpoint.optimizers,
        },
        fresh,
    )
    fresh.replace(folder / FILE)


def load(folder: Path) -> Checkpoint | None:
    """Read the checkpoint, None if there is none. Raises JobError if it cannot be read."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(
            state["architecture"],
            Position(**state["position"]),
            state["weights"],
            state["optimizers"],
        )
    except Exception as error:  # what a damaged file raises is anybody's guess
        raise JobError(
            f"{path}: this checkpoint cannot be read; remove it to start anew"
        ) from error


def check(folder: Path, architecture: str) -> None:
    """Raise JobError if the folder's checkpoint cannot be read, or is of another architecture."""
    saved = load(folder)
    if saved is not None and saved.architecture != architecture:
        raise JobError(
            f"{folder / FILE}: this checkpoint was made with another architecture; "
            "write to another output, or remove it to start anew"
        )
