"""One training on several workers, through Ray Train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from pipeline.errors import PagelakeError, RunError, one_line

Job = TypeVar("Job")
