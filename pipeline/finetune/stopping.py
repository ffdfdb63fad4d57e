"""Being told to stop: a training ends after a whole step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Heeds Ctrl-C and SIGTERM while it is entered. Who asks again will not wait."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():  # none other may
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def asked(self) -> bool:
        """Return True if any worker was told to stop. All must call it, after the same step."""
        if not (dist.is_available() and dist.is_initialized()):
            return self._asked
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.tensor([float(self._asked)], device=device)
        dist.all_reduce(told, op=dist.ReduceOp.MAX)
        return bool(told.item())

    def _ask(self, number: int, _: Any) -> None:
        self._asked = True
        signal.signal(number, signal.SIG_DFL)
