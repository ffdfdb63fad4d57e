"""One training on several workers, through Ray Train: each calls the same function.

Starts a private Ray on this machine, or joins the one that `RAY_ADDRESS` names.
"""

from __future__ import annotations

import logging
import math
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from pipeline.errors import PagelakeError, RunError, one_line

Job = TypeVar("Job")

_PATIENCE_S = 4 * 3600
"""How long workers wait for the one that measures."""


def train_together(
    work: Callable[[Job], bool],
    job: Job,
    workers: int,
    folder: Path,
    *,
    cpus: float | None = None,
    gpus: int = 0,
) -> bool:
    """Call `work(job)` on `workers` processes of one torch.distributed group; return what it does.

    Each has `cpus` cores (one if None) and `gpus` GPUs. Ray keeps papers of its own below `folder`,
    which all machines see, while it goes on.

    Raises
    ------
    PagelakeError
        What a worker raised, or RunError if Ray or a process failed.
    """
    needs = {"CPU": cpus or 1, **({"GPU": gpus} if gpus else {})}
    papers = folder / f"ray-{secrets.token_hex(4)}"
    trainer_of: dict[str, Any] = {
        "train_loop_config": {"work": work, "job": job},
        "torch_config": TorchConfig(timeout_s=_PATIENCE_S),
        "scaling_config": ScalingConfig(
            num_workers=workers, use_gpu=gpus > 0, resources_per_worker=needs
        ),
        "run_config": RunConfig(name="training", storage_path=str(papers.absolute())),
    }
    started = _start(math.ceil(workers * (cpus or 1)))
    try:
        return bool(TorchTrainer(_work, **trainer_of).fit().return_value)
    except (TrainingFailedError, RayError) as error:
        raise _cause(error) from error
    finally:
        if started:
            ray.shutdown()
        shutil.rmtree(papers, ignore_errors=True)


def _work(given: dict[str, Any]) -> bool:
    done: bool = given["work"](given["job"])
    return done


def _start(cpus: int) -> bool:
    """Start or join Ray, unless this process has; return True then."""
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = os.environ.get("RAY_ADDRESS")
    local = {} if address else {"num_cpus": cpus + 1, "include_dashboard": False}
    try:
        ray.init(address=address or "local", **local, **quiet)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise RunError(f"Ray does not start: {one_line(error)}") from error
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    return True


def _cause(error: Exception) -> PagelakeError:
    """Return what a worker raised; others mostly fail because it is gone."""
    failures = dict(getattr(error, "worker_failures", {}))
    for failure in failures.values():
        raised = getattr(failure, "_base_exc", failure)
        raised = getattr(raised, "cause", raised)
        if isinstance(raised, PagelakeError):
            return raised
    first = next(iter(failures.values()), error)
    return RunError(f"a worker of the training failed: {one_line(first)}")
