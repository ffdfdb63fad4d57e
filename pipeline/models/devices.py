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


class DeviceLost(RuntimeError):
    """The device failed, and fails from now on whatever it is asked: no sample is to blame."""


@contextmanager
def device_errors() -> Iterator[None]:
    """Raise, of one line, MemoryError where torch says in its own ways that there is no room, and
    DeviceLost where a GPU will not go on."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error).splitlines()[0]) from error
    except torch.AcceleratorError as error:
        raise DeviceLost(str(error).splitlines()[0]) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):  # how torch says it on a CPU
            raise MemoryError(str(error).splitlines()[0]) from error
        raise


def give_back_memory() -> None:
    """Give what torch holds in reserve on a GPU back to it."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def use_threads(count: int) -> None:
    """Let this thread's own operations use so many threads."""
    # A thread takes the process's default when it first asks, over what it was told before.
    torch.get_num_threads()
    torch.set_num_threads(count)
