"""Starting a training: one process on a GPU, or one a CPU core that share the work."""

from __future__ import annotations

import datetime
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist

from pipeline.errors import JobError, PagelakeError, RunError, one_line
from pipeline.lake.folders import output_folder
from pipeline.pretrain import checkpoint
from pipeline.pretrain.job import TrainJob

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
_PATIENCE = datetime.timedelta(hours=2)
"""How long processes wait for the one that validates."""


def train(job: TrainJob) -> bool:
    """Train, going on from the output folder's checkpoint if there is one.

    Returns False if it was told to stop (Ctrl-C, SIGTERM) before the time was up.

    Raises
    ------
    OutputError
        If the folder cannot be used, or another training does.
    JobError
        If its checkpoint cannot be used.
    RunError
        If a process died, or the numbers left the finite ones.
    """
    folder = output_folder(job.output)
    checkpoint.check(folder, job)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        if job.processes > 1:
            raise JobError("processes: on a GPU there is one; set it to 0")
        from pipeline.pretrain.train import Trainer

        with _environment({"TOKENIZERS_PARALLELISM": "false"}):
            return Trainer(job, 0, 1, workers=max(1, (cores or 1) - 1)).run()
    return _train_together(job, job.processes or cores or 1)


def _train_together(job: TrainJob, ranks: int) -> bool:
    context = multiprocessing.get_context("spawn")
    complaints = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as meeting, _Signals() as signals:
        point = f"file://{meeting}/point"
        with _environment(_ENVIRONMENT):  # which processes read when they start
            for rank in range(ranks):
                arguments = (job.model_dump(), rank, ranks, point, complaints)
                signals.processes.append(context.Process(target=_rank, args=arguments))
                signals.processes[-1].start()
        signals.heed_the_terminal()
        codes = _watch(signals.processes)
    if not complaints.empty():
        raise complaints.get()
    asked = {_STOPPED, -signal.SIGTERM} if signals.asked else {_STOPPED}
    if bad := [code for code in codes if code and code not in asked]:
        raise RunError(
            f"a training process died (exit code {bad[0]}); the checkpoint is in {job.output}"
        )
    return not any(codes)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _rank(
    job: dict[str, Any],
    rank: int,
    ranks: int,
    point: str,
    complaints: SimpleQueue[PagelakeError],
) -> None:
    # Only here: transformers takes seconds to load, and the process that starts this one does
    # without it.
    from pipeline.pretrain.train import Trainer

    torch.set_num_threads(1)
    trainer = Trainer(TrainJob.model_validate(job), rank, ranks, workers=0)
    if ranks > 1:
        dist.init_process_group(
            "gloo", init_method=point, rank=rank, world_size=ranks, timeout=_PATIENCE
        )
    try:
        finished = trainer.run()
    except PagelakeError as error:
        complaints.put(error)
        raise SystemExit(1) from None
    except OSError as error:
        complaints.put(RunError(f"{job['output']}: {one_line(error)}"))
        raise SystemExit(1) from None
    if ranks > 1:
        dist.destroy_process_group()
    raise SystemExit(0 if finished else _STOPPED)


class _Signals:
    """Hands signals to stop on to the processes, which stop together, after a whole step.

    The processes ignore Ctrl-C of the terminal, which would reach them at any moment; they are
    sent SIGTERM.
    """

    def __init__(self) -> None:
        self.processes: list[SpawnProcess] = []
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._hand_on)
        # What is ignored stays so in processes started from here on.
        self._before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def heed_the_terminal(self) -> None:
        """Take Ctrl-C again, once all the processes are started."""
        signal.signal(signal.SIGINT, self._hand_on)

    def _hand_on(self, *_: object) -> None:
        self.asked = True
        for process in self.processes:
            if process.is_alive():
                process.terminate()


def _watch(processes: Sequence[SpawnProcess]) -> list[int]:
    """Return the exit codes. One that dies takes the others with it: they could only wait."""
    running = list(processes)
    while running:
        wait([process.sentinel for process in running])
        for process in [p for p in running if not p.is_alive()]:
            process.join()
            running.remove(process)
            if process.exitcode not in (0, _STOPPED):
                for other in running:
                    other.kill()
    return [process.exitcode or 0 for process in processes]
