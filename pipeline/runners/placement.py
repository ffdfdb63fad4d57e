"""What a run's tasks and actors ask of Ray, as `map_batches` takes it."""

from __future__ import annotations

from typing import Any

from pipeline.job import Job

_RETRIES = 10


def task_options(job: Job, cpus: float = 1) -> dict[str, Any]:
    """What a task that plans, draws or commits takes. A lost one is tried again for ever."""
    return {"num_cpus": cpus, "resources": dict(job.resources.custom_per_task) or None}


def actor_options(job: Job) -> dict[str, Any]:
    """What a copy of the model takes, and how often it and its calls are tried again.

    Samples kill the model's process and not its actor. One that does die every time must end the
    run, not occupy it for ever; lost machines are to be expected.
    """
    restarts = job.resources.max_restarts
    return {
        **actor_share(job),
        "resources": dict(job.resources.custom_per_actor) or None,
        "max_restarts": restarts,
        # Where no actor comes back, Ray takes no calls that are tried again.
        "max_task_retries": _RETRIES if restarts else 0,
    }


def actor_share(job: Job) -> dict[str, float]:
    """Return the GPUs and CPU cores of a copy of the model."""
    resources = job.resources
    if resources.gpus_per_actor > 0:
        return {"num_gpus": resources.gpus_per_actor, "num_cpus": resources.cpus_per_actor or 1}
    # Not a whole core: Ray fuses an actor that asks for the same as the task before it.
    return {"num_cpus": resources.cpus_per_actor or 0.5}
