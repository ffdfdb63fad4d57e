"""The device that a model would run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def describe_device() -> str:
    """Say in one line what torch finds: the GPUs, or the CPU and its threads."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{len(names)} GPU: {', '.join(names)}"
    return f"CPU only, {torch.get_num_threads()} threads; set resources.gpus_per_actor: 0"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError, of one line, where torch says in its own ways that there is no room."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error).splitlines()[0]) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):  # how torch says it on a CPU
            raise MemoryError(str(error).splitlines()[0]) from error
        raise
