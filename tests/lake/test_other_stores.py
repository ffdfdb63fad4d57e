"""Azure, against Azurite where it is installed, and Google's store, against a made-up endpoint."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs
from recording_s3 import BODY, Numbered, recording_s3

from pipeline.errors import OutputError, RunError
from pipeline.job import Input
from pipeline.lake.layout import LOCK, Layout
from pipeline.lake.lock import Lock
from pipeline.lake.object_store import ChangedError
from pipeline.lake.source import Source
from pipeline.lake.stores import Stores
from pipeline.stages.discover import discover
from pipeline.store_settings import Store

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, the same everywhere."""


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[str]:
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed (npm install -g azurite)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [program, "--blobPort", port, "--location", str(tmp_path), "--silent"]
    process = subprocess.Popen(
        [*command, "--skipApiVersionCheck", "--disableTelemetry"], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


def test_documents_and_tables_lie_in_azure(azurite: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fs.AzureFileSystem(
        ACCOUNT, account_key=KEY, blob_storage_authority=azurite, blob_storage_scheme="http"
    )
    client.create_dir("docs")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    store = Store(endpoint=f"http://{azurite}/{ACCOUNT}", account=ACCOUNT)
    stores = Stores.of({"az://": store, "abfs://": store})
    layout = Layout.open("az://docs/out", stores)
    layout.prepare()
    for name in ("in/b c.pdf", "in/a.pdf", "in/.h.pdf", "in/x/d.txt", "in.pdf"):
        layout.write_bytes(name, BODY)
    found = discover(Input(paths=("az://docs/out/in",)), stores)
    assert [one.uri for one in found] == ["az://docs/out/in/a.pdf", "az://docs/out/in/b%20c.pdf"]
    assert found.ignored == 1
    uri = f"abfs://docs@{ACCOUNT}.dfs.core.windows.net/out/in/*.pdf"
    (document, _) = list(discover(Input(paths=(uri,)), stores))
    source = Source(stores)
    source.check_unchanged(document.uri, document.size, document.modified)
    assert source.content(document.uri) == BODY
    with Lock(layout, "first") as lock:
        lock.require()
        with pytest.raises(OutputError, match="in use"), Lock(layout, "second"):
            pass
        with pytest.raises(ChangedError):
            layout.put_over(LOCK, b"", None)
    assert layout.list("in", deep=True)[0] == "in/.h.pdf"
    layout.delete("in/a.pdf")
    layout.delete("in/a.pdf")
    assert not layout.exists("in/a.pdf")
    with pytest.raises(OutputError, match="az://nowhere: no such bucket"):
        Layout.open("az://nowhere/out", stores).prepare()


def test_googles_store_is_listed_read_and_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording_s3(Numbered(3)) as server:
        store = Store(endpoint=server.endpoint, anonymous=True, attempts=2)
        stores = Stores.of({"gs://": store})
        first, *_ = discover(Input(paths=("gs://b/scans/*.pdf",)), stores)
        assert first.uri == "gs://b/scans/00000000.pdf"
        source = Source(stores)
        source.check_unchanged(first.uri, first.size, first.modified)
        assert source.content(first.uri) == BODY
        assert all(request.authorization == "" for request in server.requests)
        Layout.open("gs://b/out", stores).write_bytes("x", b"1")
        assert server.requests[-1].method == "PUT"
        server.fault = lambda _: 503
        server.requests.clear()
        with pytest.raises(RunError, match=r"answers 503 \(2 tries\)\); run again later"):
            Layout.open("gs://b/out", stores).prepare()
        assert len(server.requests) == 2
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.endpoint.removeprefix("http://"))
        server.fault = lambda _: None
        assert Source().content(first.uri) == BODY
