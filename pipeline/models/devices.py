"""The device that a model would run on."""

from __future__ import annotations

import torch


def describe_device() -> str:
    """Say in one line what torch finds: the GPUs, or the CPU and its threads."""
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return f"{len(names)} GPU: {', '.join(names)}"
    return f"CPU only, {torch.get_num_threads()} threads; set resources.gpus_per_actor: 0"
