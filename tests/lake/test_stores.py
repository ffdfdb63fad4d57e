"""Reading and writing through a real S3 endpoint."""

from __future__ import annotations

from datetime import timedelta

import pytest
from s3_server import S3Server

from pipeline.errors import OutputError, RunError
from pipeline.lake import lock as lock_module
from pipeline.lake.holder import this_process
from pipeline.lake.layout import LOCK, Layout
from pipeline.lake.lock import Lock
from pipeline.lake.object_store import ChangedError, Version
from pipeline.lake.stores import Stores
from pipeline.store_settings import Store


def test_an_output_on_s3_keeps_what_is_written(s3: S3Server) -> None:
    s3.make_bucket("outputs")
    stores = Stores.of({key: Store(**value) for key, value in s3.stores.items()})
    layout = Layout.open("s3://outputs/here", stores)
    layout.prepare()
    layout.write_bytes("pages/x", b"bytes")
    assert layout.list("pages") == ["pages/x"]
    with s3.filesystem.open_input_stream("outputs/here/pages/x") as stream:
        assert stream.read() == b"bytes"


def test_the_longest_beginning_of_a_uri_decides() -> None:
    stores = Stores.of({"s3://": Store(region="a"), "s3://open/": Store(anonymous=True)})
    assert stores.store("s3://open/x").anonymous
    assert stores.store("s3://other/x").region == "a"
    assert stores.store("gs://other/x") == Store()


def test_a_beginning_of_a_uri_ends_where_a_name_does() -> None:
    stores = Stores.of({"s3://open": Store(anonymous=True), "s3://b/in": Store(region="a")})
    for uri in ("s3://open", "s3://open/x", "s3://open?region=x"):
        assert stores.store(uri).anonymous
    assert stores.store("s3://b/in/x").region == "a"
    for uri in ("s3://openly/x", "s3://open-2", "s3://b/inner/x"):
        assert stores.store(uri) == Store()


def test_of_takers_of_a_lock_on_s3_one_passes_and_none_waits(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setattr(lock_module, "_SETTLE_S", 1000)
    s3.make_bucket("locks")
    layout = Layout.open("s3://locks/here")
    with Lock(layout, "first") as lock:
        with pytest.raises(OutputError, match=r"in use since .* by run first"), Lock(layout, "b"):
            pass
        lock.require()
        with pytest.raises(ChangedError):
            layout.put_over(LOCK, b"", None)
    assert not layout.exists(LOCK)
    gone = this_process("gone", timedelta(0))
    layout.write_bytes(LOCK, gone.to_json().encode())
    with Lock(layout, "second") as lock:
        layout.write_bytes(LOCK, gone.to_json().encode())
        with pytest.raises(RunError, match="run gone"):
            lock.require()


def test_a_lock_is_not_taken_over_a_lock_that_came_between(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    s3.make_bucket("races")
    layout = Layout.open("s3://races/here")
    other = this_process("other", timedelta(seconds=60))
    put_over = Layout.put_over

    def late(self: Layout, name: str, data: bytes, version: Version | None) -> None:
        layout.write_bytes(LOCK, other.to_json().encode())
        put_over(self, name, data, version)

    monkeypatch.setattr(Layout, "put_over", late)
    with pytest.raises(OutputError, match=r"in use since .* by run other"), Lock(layout, "first"):
        pass
    assert layout.exists(LOCK)


def test_a_store_that_does_not_heed_conditions_is_waited_for(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    s3.make_bucket("heedless")
    layout = Layout.open("s3://heedless/here")
    waits = []

    def unheeded(self: Layout, name: str, data: bytes, version: Version | None) -> None:
        layout.write_bytes(name, data)

    monkeypatch.setattr(Layout, "put_over", unheeded)
    monkeypatch.setattr(lock_module.time, "sleep", waits.append)
    with Lock(layout, "first") as lock:
        lock.require()
    assert waits == [1.0]
