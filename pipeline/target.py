"""What a command about an output is given: its URI, or the file of the job that writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.lake.stores import Stores


def output_of(target: str) -> tuple[str, Stores]:
    """Return the output that a URI or a job file names, and how to reach it.

    Raises JobError if it is a job file that cannot be used.
    """
    from pipeline.jobfile import load_job
    from pipeline.lake.stores import Stores

    if target.endswith((".yaml", ".yml")) and Path(target).is_file():
        job = load_job(target, elsewhere=True)
        return job.output.uri, Stores.of(job.stores)
    return target, Stores()
