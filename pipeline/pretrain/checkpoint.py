"""The training's state on disk: what a stopped training goes on from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import JobError
from pipeline.pretrain.job import TrainJob

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

    Without `optimizers` (an empty list) they start anew, which costs some hundred steps.
    `made_for` is what of a job the rest depends on, by `dependencies`.
    """

    made_for: dict[str, str]
    position: Position
    weights: dict[str, Any]
    optimizers: list[dict[str, Any]]


def dependencies(job: TrainJob) -> dict[str, str]:
    """Return what may not change between stopping and going on, by key of the job."""
    stages = [(s.name, s.route, s.weights.model_dump_json()) for s in job.stages]
    return {
        "architecture": job.architecture.model_dump_json(),
        "seed": str(job.seed),
        "stages": str(stages),
    }


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint; a crash leaves the old one or the new one, whole."""
    fresh = folder / (FILE + ".new")
    state = {
        "made_for": checkpoint.made_for,
        "position": asdict(checkpoint.position),
        "weights": checkpoint.weights,
        "optimizers": checkpoint.optimizers,
    }
    torch.save(state, fresh)
    fresh.replace(folder / FILE)


def load(folder: Path) -> Checkpoint | None:
    """Read the checkpoint, None if there is none. Raises JobError if it cannot be read."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return Checkpoint(
            state["made_for"],
            Position(**state["position"]),
            state["weights"],
            state["optimizers"],
        )
    except OSError as error:
        raise JobError(f"{path}: cannot be read: {error.strerror}") from error
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file raises is anybody's guess
        problem = "this is no checkpoint, or a damaged one; remove it to start anew"
        raise JobError(f"{path}: {problem}") from error


def check(folder: Path, job: TrainJob) -> None:
    """Raise JobError if the folder's checkpoint cannot be read, or was made for another job."""
    saved = load(folder)
    if saved is None:
        return
    changed = [key for key, value in dependencies(job).items() if saved.made_for.get(key) != value]
    if changed:
        raise JobError(
            f"{folder / FILE}: the checkpoint there was made with another {' and '.join(changed)}; "
            "write to another output, or remove it to start anew"
        )
