"""The device that a model would run on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.models.base import DeviceLost

_GROUP = Path("/sys/fs/cgroup")


def describe_device() -> str:
    """Say in one line what torch finds: the GPUs, or the CPU and its threads."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{len(names)} GPU: {', '.join(names)}"
    return f"CPU only, {torch.get_num_threads()} threads; set resources.gpus_per_actor: 0"


_DEVICE_ERROR: type[Exception] = getattr(torch, "AcceleratorError", DeviceLost)
"""Older torch has no name for it."""


@contextmanager
def device_errors() -> Iterator[None]:
    """Raise, of one line, MemoryError where torch says in its own ways that there is no room, and
    DeviceLost where a GPU will not go on."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error).splitlines()[0]) from error
    except _DEVICE_ERROR as error:
        line = str(error).splitlines()[0]
        raise (MemoryError if "out of memory" in line else DeviceLost)(line) from error
    except RuntimeError as error:
        if "DefaultCPUAllocator" in str(error):  # how torch says it on a CPU
            raise MemoryError(str(error).splitlines()[0]) from error
        raise


def index_tensor(numbers: Sequence[int] | NDArray[np.int64], device: torch.device) -> Tensor:
    """Return the numbers as int64 on a device, in their shape."""
    return torch.as_tensor(np.asarray(numbers, np.int64)).to(device, non_blocking=True)


def use_threads(count: int) -> None:
    """Let this thread's own operations use so many threads."""
    # A thread takes the process's default when it first asks, over what it was told before.
    torch.get_num_threads()
    torch.set_num_threads(count)


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on a device, as far as the system tells."""
    if device.type == "cuda":
        # What torch holds in reserve and does not use is free to us as well.
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + idle
    return min(_available(), _left_in_group())


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return 1 << 62
    return next((int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line), 1 << 62)


def _left_in_group() -> int:
    """What the control group (v2) of a container leaves; files in the cache make room if asked."""
    try:
        most, used, kinds = (
            (_GROUP / name).read_text(encoding="ascii").strip()
            for name in ("memory.max", "memory.current", "memory.stat")
        )
    except OSError:
        return 1 << 62
    if most == "max":
        return 1 << 62
    cached = next((line.split()[1] for line in kinds.splitlines() if "inactive_file" in line), "0")
    return max(0, int(most) - int(used) + int(cached))
