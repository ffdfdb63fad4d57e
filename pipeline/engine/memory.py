"""How many rows fit into the device's memory."""

from __future__ import annotations

from dataclasses import dataclass

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
