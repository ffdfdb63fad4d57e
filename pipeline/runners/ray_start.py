"""Ray before it has work: started or joined, quiet, with our settings, and fit for the job.

Where a setting differs from Ray's default, a comment says why. Import `ray_data` before this: it
sets what Ray reads when it is imported.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.data import DataContext

from pipeline.errors import JobError
from pipeline.runners.placement import actor_share
from pipeline.runners.ray_flow import NUMBERS_A_TASK, bound
from pipeline.runners.reach import refuse_unshared
from pipeline.runners.recipe import Recipe

_OBJECT_STORE_BYTES = 1 << 30
_NEVER_SPLIT = 1 << 40
_PLENTY = 1 << 30
_KEEP_WORKERS_MS = 600_000


def start(recipe: Recipe) -> None:
    """Join the Ray that `RAY_ADDRESS` names, or start a private one. Raises whatever Ray does."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    resources = recipe.job.resources
    cpus = resources.cpus or os.cpu_count() or 1
    # Ray tells of every worker that dies on standard output, whatever it is asked: that is the
    # place of --json, and of a page that ends its workers the table tells.
    ray._private.worker._worker_logs_enabled = False
    with _muted():
        if address := os.environ.get("RAY_ADDRESS"):
            ray.init(address=address, **quiet)
        else:
            ray.init(
                address="local",
                num_cpus=max(2, math.ceil(cpus)),
                object_store_memory=_OBJECT_STORE_BYTES,
                # What tells a cluster's machines apart, this one has enough of.
                resources=dict.fromkeys(
                    (*resources.custom_per_actor, *resources.custom_per_task), _PLENTY
                ),
                include_dashboard=False,
                # Ray ends a worker that is idle for a second once there are more than cores, and
                # on a laptop would start a process anew for nearly every commit. It also keeps what
                # became of 100,000 tasks, some kB each, for a dashboard that is not there.
                _system_config={
                    "idle_worker_killing_time_threshold_ms": _KEEP_WORKERS_MS,
                    "task_events_report_interval_ms": 0,
                },
                **quiet,
            )


@contextmanager
def _muted() -> Iterator[None]:
    """Silence the process's standard error, for what Ray's core writes there as it starts."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def configure() -> None:
    """Set Ray Data's own settings in this process."""
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Data must never be dropped to go on: items fail as rows, and everything else stops the run.
    context.max_errored_blocks = 0
    # A slow model is no stall; Ray would end a run that commits nothing for half an hour.
    context.execution_no_progress_timeout_s = -1
    context.max_consecutive_actor_init_deaths = 3
    context.target_max_block_size = _NEVER_SPLIT
    # Of our tasks only those that number shards give more than one block, of a few bytes each; at
    # Ray's two a look of the driver's they would take longer than the drawing that waits for them.
    context._max_num_blocks_in_streaming_gen_buffer = NUMBERS_A_TASK
    bound(context)


def check_resources(recipe: Recipe) -> None:
    """Raise JobError if the actors and one drawing task can never run together.

    Ray would wait for ever. A cluster may grow, so only a Ray of our own is checked.
    """
    if os.environ.get("RAY_ADDRESS"):
        return
    actor, has = actor_share(recipe.job), ray.cluster_resources()
    count = recipe.job.resources.actors.min
    for what, key, spare in (("CPU", "num_cpus", 1), ("GPU", "num_gpus", 0)):
        wanted = count * actor.get(key, 0)
        if wanted + spare > has.get(what, 0) and wanted > 0:
            raise JobError(
                f"resources: {count} actors want {wanted:g} {what}s"
                f"{' and drawing wants one' if spare else ''}, and this machine's Ray has "
                f"{has.get(what, 0):g}; lower resources.{key.removeprefix('num_')}_per_actor"
            )


def refuse_local_files(recipe: Recipe) -> None:
    """Raise JobError if machines that do not see the job's files have work to do, or will have.

    A head without CPUs does none itself, though it may stand alone until others have been started.
    """
    own = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    here = next((node["NodeManagerAddress"] for node in alive if node["NodeID"] == own), None)
    nodes_here = [node for node in alive if node["NodeManagerAddress"] == here]
    if len(nodes_here) < len(alive):
        refuse_unshared(recipe.job, "the cluster has others")
    if not any(node["Resources"].get("CPU") for node in nodes_here):
        refuse_unshared(recipe.job, "Ray has no CPUs here, so others will do the work")
