"""Starting a training: one process on a GPU, or one a CPU core that share the work."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pipeline.errors import OutputError, RunError
from pipeline.finetune import checkpoint
from pipeline.finetune.job import TrainJob
from pipeline.finetune.train import Trainer

_ENVIRONMENT = {
    # Each process has one core to itself; a waiting thread must not spin on it.
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc would give every large tensor back to the system, and fault its pages in again.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "TOKENIZERS_PARALLELISM": "false",
}
_STOPPED = 75
"""Exit code of a process that was told to stop, and saved what it had."""


def train(job: TrainJob) -> bool:
    """Train, going on from the output folder's checkpoint if there is one.

    Returns False if it was told to stop (Ctrl-C, SIGTERM) before the time was up.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    JobError
        If its checkpoint cannot be used.
    RunError
        If a process died.
    """
    folder = Path(job.output)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"output: '{folder}' cannot be made: {error.strerror}") from error
    checkpoint.check(folder, job.architecture.model_dump_json())
    cores = len(os.sched_getaffinity(0))
    if torch.cuda.is_available():
        return Trainer(job, 0, 1, workers=max(1, cores - 1)).run()
    ranks = job.processes or cores
    os.environ.update(_ENVIRONMENT)  # which processes read when they start
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as meeting:
        arguments = [(job.model_dump(), rank, ranks, f"{meeting}/point") for rank in range(ranks)]
        processes = [context.Process(target=_rank, args=each) for each in arguments]
        for process in processes:
            process.start()
        with _signals_passed_on(processes):
            return _watch(processes, folder)


def _rank(job: dict[str, Any], rank: int, ranks: int, meeting: str) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks
        )
    finished = Trainer(TrainJob.model_validate(job), rank, ranks, workers=0).run()
    if ranks > 1:
        dist.destroy_process_group()
    raise SystemExit(0 if finished else _STOPPED)


@contextmanager
def _signals_passed_on(processes: Sequence[SpawnProcess]) -> Iterator[None]:
    """Hand the signals to stop on to the processes, which stop together, after a whole step."""

    def hand_on(number: int, _: Any) -> None:
        for process in processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(processes: Sequence[SpawnProcess], folder: Path) -> bool:
    """Wait for all. One that dies takes the others with it: they could only wait for it."""
    running = list(processes)
    while running:
        ended = wait([process.sentinel for process in running])
        running = [process for process in running if process.sentinel not in ended]
        codes = {process.exitcode or 0 for process in processes if process not in running}
        if bad := codes - {0, _STOPPED}:
            for process in running:
                process.kill()
            raise RunError(
                f"a training process died (exit code {max(bad)}); "
                f"run again to go on from the checkpoint in {folder}"
            )
    return all(process.exitcode == 0 for process in processes)
