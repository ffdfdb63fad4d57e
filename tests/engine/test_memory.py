"""How much memory there is, and how many rows fit into it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.engine.memory import plan_memory
from pipeline.models import devices
from pipeline.models.devices import free_bytes


@pytest.mark.parametrize(
    ("most", "used", "cached", "free"),
    [
        ("max", 10, 0, 1 << 62),
        ("1000", 900, 0, 100),
        ("1000", 990, 800, 810),  # files that were read make room
        ("1000", 1200, 0, 0),
    ],
)
def test_a_containers_limit_counts_without_what_its_cache_would_give(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: str,
    used: int,
    cached: int,
    free: int,
) -> None:
    (tmp_path / "memory.max").write_text(f"{most}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nslab 7\n")
    monkeypatch.setattr(devices, "_GROUP", tmp_path)
    monkeypatch.setattr(devices, "_available", lambda: 1 << 62)
    assert free_bytes(torch.device("cpu")) == free


def test_a_plan_has_the_slots_that_fit() -> None:
    assert plan_memory(64, 100, 1000, 64 * 100_000 * 2).slots == 64
    assert plan_memory(64, 100, 1000, 1_000_000).slots == 8
    with pytest.raises(MemoryError, match="max_new_tokens"):
        plan_memory(64, 100, 1000, 100_000)
