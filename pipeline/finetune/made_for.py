"""What may not change between stopping a training and going on with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import JobError
from pipeline.finetune.data import Row
from pipeline.finetune.job import FinetuneJob
from pipeline.models.base import Checkpoint
from pipeline.schema import Schema

FILE = "made_for.json"

_FREE = {
    "name",
    "output",
    "save_every",
    "eval_every",
    "eval_documents",
    "max_new_tokens",
    "constrained",
    "checkpointing",
    "merge",
    "resources",
    "data",
    "schema",
    "model",
    "render",
}
"""Keys that may change, and those that stand in `dependencies` by what they come to."""


def dependencies(
    job: FinetuneJob, schema: Schema, checkpoint: Checkpoint, rows: Sequence[Row]
) -> dict[str, str]:
    """Return what the checkpoints of a training depend on, by key of the job."""
    taught = hashlib.sha256("\n".join(row.content for row in rows).encode()).hexdigest()
    settings = job.model.model_dump(mode="json", exclude={"name", "revision", "adapter"})
    kept = job.model_dump(mode="json", by_alias=True)
    return {
        **{key: json.dumps(value) for key, value in kept.items() if key not in _FREE},
        "schema": f"{schema.id}@{schema.sha256[:16]}",
        "model": json.dumps([checkpoint.name, checkpoint.revision, settings]),
        "render": job.render.renderer,
        "data.train": taught,
    }


def check(folder: Path, now: dict[str, str]) -> None:
    """Raise JobError if the folder's checkpoints were made for another job; names the keys."""
    path = folder / FILE
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError):
        raise JobError(f"{path}: cannot be read; remove the folder to start anew") from None
    changed = [key for key, value in now.items() if before.get(key) != value]
    if changed:
        raise JobError(
            f"{folder}: the training there was begun with another {' and '.join(changed)}; write "
            "to another output, or remove the folder to start anew"
        )


def write(folder: Path, now: dict[str, str]) -> None:
    """Note what the checkpoints to come are made for."""
    (folder / FILE).write_text(json.dumps(now, indent=2) + "\n", encoding="utf-8")
