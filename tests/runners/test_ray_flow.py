"""What bounds the driver, held to the Ray that is installed: some of it goes by private names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pytest
from ray.data import DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data._internal.execution.operators.map_operator import MapOperator
from ray.data._internal.execution.streaming_executor import StreamingExecutor

from pipeline.runners.ray_flow import NUMBERS_A_TASK, Forget, numbered
from pipeline.runners.ray_start import configure

COUNT = 3 * NUMBERS_A_TASK + 7


class Watcher(ExecutionCallback):
    """Notes what the driver held at each look: numbers that wait, and statistics of blocks."""

    waiting: list[int] = []  # noqa: RUF012  Ray makes the object, of the class alone
    kept: list[int] = []  # noqa: RUF012

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        topology = executor._topology or {}
        for op, state in topology.items():
            if isinstance(op, MapOperator):
                self.kept.append(len(op._output_blocks_stats))
            if "Repartition" in op.name:
                self.waiting.append(state.total_enqueued_output_blocks())


@pytest.fixture
def watcher(ray_session: None) -> Iterator[type[Watcher]]:
    context = DataContext.get_current()
    before = context.copy()
    configure()
    context.custom_execution_callback_classes.append(Watcher)
    Watcher.waiting.clear()
    Watcher.kept.clear()
    yield Watcher
    DataContext._set_current(before)


def blocks(count: int) -> list[list[int]]:
    """The numbers in each block that a task got."""
    held = numbered(count).map_batches(
        lambda table: pa.table({"got": [table.column("id").to_pylist()]}),
        batch_size=None,
        batch_format="pyarrow",
    )
    return [row["got"] for row in held.iter_rows()]


@pytest.mark.parametrize("count", [0, COUNT])
def test_numbers_are_a_block_each_and_made_when_few_of_them_wait(
    watcher: type[Watcher], count: int
) -> None:
    got = [block for block in blocks(count) if block]
    assert Counter(map(tuple, got)) == Counter((number,) for number in range(count))
    assert max(watcher.waiting) < 2 * NUMBERS_A_TASK


def test_what_is_known_of_a_block_is_forgotten(watcher: type[Watcher]) -> None:
    blocks(9)
    assert watcher.kept
    assert set(watcher.kept) == {0}
    watcher.kept.clear()
    DataContext.get_current().custom_execution_callback_classes.remove(Forget)
    blocks(9)
    assert max(watcher.kept) >= 9
