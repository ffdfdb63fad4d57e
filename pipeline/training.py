"""`pagelake finetune`: which training a job file asks for, by its keys."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.configfile import find, merged, parse_overrides, read
from pipeline.errors import JobError


def train(name_or_path: str, overrides: Sequence[str] = (), output: str | None = None) -> bool:
    """Train as a job file says: from scratch if it has `stages`, from a checkpoint if `data`.

    Returns False if it was told to stop before the end.

    Raises
    ------
    UserError
        If the job or what it names cannot be used.
    RunError
        If the training fails.
    """
    path = find(name_or_path)
    keys = {"stages", "data"}.intersection(merged(read(path), parse_overrides(overrides)))
    if keys == {"stages"}:
        from pipeline.pretrain.job import load_train_job
        from pipeline.pretrain.launch import train as train_from_scratch

        return train_from_scratch(load_train_job(name_or_path, overrides, output))
    if keys == {"data"}:
        return _finetune(name_or_path, overrides, output)
    raise JobError(
        f"{path}: a training has either data, to fine-tune a checkpoint, or stages, to train a "
        f"reader from scratch; this job has {'both' if keys else 'neither'}"
    )


def _finetune(name_or_path: str, overrides: Sequence[str], output: str | None) -> bool:
    from pipeline.finetune.job import load_finetune_job

    job = load_finetune_job(name_or_path, overrides, output)
    from pipeline.finetune.launch import check_packages
    from pipeline.finetune.launch import train as train_here
    from pipeline.lake.folders import output_folder

    if job.workers == 1:
        return train_here(job)
    check_packages(job)
    from pipeline.finetune.curve import following
    from pipeline.runners.ray_train import train_together

    folder, needs = output_folder(job.output), job.resources
    with following(folder):
        return train_together(
            train_here,
            job,
            job.workers,
            folder,
            cpus=needs.cpus_per_worker,
            gpus=needs.gpus_per_worker,
        )
