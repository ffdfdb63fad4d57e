"""Reading and writing through a real S3 endpoint."""

from __future__ import annotations

from s3_server import S3Server

from pipeline.lake.layout import Layout
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
