"""What bounds the driver while a dataset flows, however many shards it has.

Left alone Ray Data would number all shards before it works on the first, and keep statistics of
every block that it ever saw. Its private names that stand here were read in Ray 2.60.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import ray.data
from ray.data import DataContext
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.data._internal.logical.operators import StreamingRepartition

if TYPE_CHECKING:
    from ray.data._internal.execution.interfaces import PhysicalOperator
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

NUMBERS_A_TASK = 128
"""Enough for a thousand cores to draw between two looks of the driver's."""


def numbered(count: int) -> ray.data.Dataset:
    """Return a dataset of `count` blocks of one row each, `id` 0 to `count` - 1."""
    spans = [
        pa.table({"id": pa.array(range(start, min(start + NUMBERS_A_TASK, count)), pa.int64())})
        for start in range(0, max(count, 1), NUMBERS_A_TASK)
    ]
    dataset = ray.data.from_arrow(spans).repartition(target_num_rows_per_block=1)
    # With a core of its own, Ray would keep it from the last stage for as long as shards are left.
    dataset._logical_plan.dag.ray_remote_args["num_cpus"] = 0
    return dataset


def bound(context: DataContext) -> None:
    """Hold the datasets made under this context to what is said above."""
    policies = [*ENABLED_BACKPRESSURE_POLICIES, NumberWhenWanted]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)
    if Forget not in context.custom_execution_callback_classes:
        context.custom_execution_callback_classes.append(Forget)


class NumberWhenWanted(BackpressurePolicy):  # type: ignore[misc]
    """Numbers more shards only when few of those numbered still wait for a task."""

    def can_add_input(self, op: PhysicalOperator) -> bool:
        """Tell whether the operator may start another task."""
        if not op.name.startswith(StreamingRepartition.__name__):
            return True
        waiting = self._topology[op].total_enqueued_output_blocks()
        return bool(op.num_active_tasks() == 0 and waiting < NUMBERS_A_TASK)


class Forget(ExecutionCallback):  # type: ignore[misc]
    """Drops what Ray Data keeps of every block for a summary that nobody asks for."""

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Drop what has come up since the last step."""
        for op in executor._topology or ():
            if isinstance(op, MapOperator):
                op._output_blocks_stats.clear()
