"""Where a training computes, and in which arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.pretrain.collate import Batch, Tokens


@dataclass(frozen=True, slots=True)
class Precision:
    """A device, and the type of its matrix products; weights stay float32."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, asked: Literal["auto", "float32", "bfloat16"]) -> Precision:
        """Take the GPU if there is one; bfloat16 only where the hardware computes in it."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if asked == "auto":
            fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16()
            asked = "bfloat16" if fast else "float32"
        return cls(device, torch.bfloat16 if asked == "bfloat16" else torch.float32)

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which matrix products are done in the type."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is torch.bfloat16)

    def place(self, batch: Batch) -> Batch:
        """Move a batch to the device."""
        if self.device.type == "cpu":
            return batch
        tokens = batch.tokens
        return Batch(
            batch.tiles.to(self.device),
            batch.levels.to(self.device),
            batch.characters.to(self.device),
            tokens
            and Tokens(
                tokens.ids.to(self.device),
                tokens.labels.to(self.device),
                tokens.patches.to(self.device),
                tokens.start,
            ),
        )


def _cpu_has_bfloat16() -> bool:
    # Without such instructions torch imitates bfloat16, four times slower than float32.
    cpu = torch.cpu
    return bool(cpu._is_avx512_bf16_supported() or cpu._is_amx_tile_supported())
