from __future__ import annotations

import pytest

from pipeline.models.dtypes import effective_dtype


@pytest.mark.parametrize(
    ("dtype", "on_gpu", "expected"),
    [
        ("auto", False, "float32"),
        ("auto", True, "bfloat16"),
        ("float16", False, "float16"),
        ("float16", True, "float16"),
        ("float32", True, "float32"),
    ],
)
def test_auto_is_what_the_device_makes_of_it(dtype: str, on_gpu: bool, expected: str) -> None:
    assert effective_dtype(dtype, on_gpu) == expected
