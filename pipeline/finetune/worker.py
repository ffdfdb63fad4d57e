"""A fine-tuning's part on one of several machines."""

from __future__ import annotations

from pipeline.errors import PagelakeError
from pipeline.finetune.job import FinetuneJob


def train_worker(job: FinetuneJob) -> bool | PagelakeError:
    """Train as one worker of torch.distributed; return what failed, in place of a traceback."""
    from pipeline.finetune.launch import train

    try:
        return train(job)
    except PagelakeError as error:
        return error
