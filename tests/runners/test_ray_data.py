"""What only the Ray runner does; that its rows are the local runner's is in test_run."""

from __future__ import annotations

import pytest
from ray.exceptions import RayError

from pipeline.errors import CheckpointError, PagelakeError, RunError
from pipeline.runners.ray_data import _explained

TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 1, in __call__
    record = loads(text)
{raised}

The above exception was the direct cause of the following exception:

ray.exceptions.UserCodeException: The following error occurred: see above
To change retry attempts, set: this and that
"""


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (
            "pipeline.errors.CheckpointError: model.name: broken",
            CheckpointError,
            "model.name: broken",
        ),
        ("ValueError: no good", RunError, "ValueError: no good"),
        ("decimal.InvalidOperation: [1]", RunError, "decimal.InvalidOperation: [1]"),
        ("pipeline.errors.ItemError: escaped", RunError, "pipeline.errors.ItemError: escaped"),
        ("Killed", RunError, "RayError"),
    ],
)
def test_the_error_behind_rays_is_told(
    raised: str, kind: type[PagelakeError], message: str
) -> None:
    found = _explained(RayError(TRACEBACK.format(raised=raised)))
    assert type(found) is kind
    assert str(found) == message
