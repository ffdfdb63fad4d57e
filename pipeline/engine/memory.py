"""How many rows fit into the device's memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

_GROUP = Path("/sys/fs/cgroup")
_SHARE = 0.8
"""Of what is free; the rest is for what a pass needs on its way."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """`slots` rows of `length` tokens, whose keys and values take `token_bytes` each."""

    slots: int
    length: int
    token_bytes: int
    free: int

    def __str__(self) -> str:
        size = self.slots * self.length * self.token_bytes
        return (
            f"{self.slots} slots of {self.length} tokens: {size / 1e9:.2f} GB of keys and values, "
            f"of {self.free / 1e9:.1f} GB free"
        )


def plan_memory(wanted: int, length: int, token_bytes: int, free: int) -> MemoryPlan:
    """Plan as many slots as wanted, or as fit.

    Raises
    ------
    MemoryError
        If not even one fits.
    """
    slots = min(wanted, int(free * _SHARE) // (length * token_bytes))
    if slots < 1:
        raise MemoryError(
            f"{length} tokens need {length * token_bytes / 1e9:.2f} GB of keys and values, and "
            f"{free / 1e9:.2f} GB are free; lower generation.max_new_tokens"
        )
    return MemoryPlan(slots, length, token_bytes, free)


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
