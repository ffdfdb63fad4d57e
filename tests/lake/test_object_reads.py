"""An object that is read in ranges is read in one version, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conditional_store import conditional_store
from s3_server import S3Server

from pipeline.lake.layout import Layout
from pipeline.lake.stores import Stores
from pipeline.store_settings import Store

_BYTES = 3 << 20


def replaced_midway(layout: Layout, later: Callable[[], None]) -> None:
    layout.write_bytes("x", b"A" * _BYTES)
    with layout.open_input("x") as file:
        assert file.read(10) == b"A" * 10
        later()
        file.read()


@pytest.mark.parametrize("size", [_BYTES, _BYTES // 2, 10])
def test_a_store_that_heeds_conditions_gives_one_version(s3: S3Server, size: int) -> None:
    s3.make_bucket("reads")
    stores = Stores.of({"s3://": Store(endpoint=s3.endpoint, region="us-east-1")})
    layout = Layout.open("s3://reads/out", stores)
    with pytest.raises(OSError, match="s3://reads/out/x changed while it was read"):
        replaced_midway(layout, lambda: layout.write_bytes("x", b"B" * size))
    replaced_midway(layout, lambda: layout.write_bytes("x", b"A" * _BYTES))  # the same once more


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_of_a_store_that_heeds_none_the_answers_are_compared(scheme: str) -> None:
    with conditional_store() as store:
        settings = Store(endpoint=store.endpoint, anonymous=True, attempts=1)
        layout = Layout.open(f"{scheme}://b/out", Stores.of({f"{scheme}://": settings}))
        replaced_midway(layout, lambda: None)
        with pytest.raises(OSError, match=f"{scheme}://b/out/x changed while it was read"):
            replaced_midway(layout, lambda: layout.write_bytes("x", b"B" * _BYTES))
