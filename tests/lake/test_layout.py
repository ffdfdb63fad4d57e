from __future__ import annotations

import errno
import os
import pickle

import pytest
from pyarrow import fs

from pipeline.errors import OutputError
from pipeline.lake.layout import PAGES, Layout


@pytest.fixture(params=["local", "file uri", "store"])
def layout(request, tmp_path) -> Layout:
    """A store is anything that is not the local filesystem: one put, no rename."""
    if request.param == "store":
        store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
        made = Layout("test://out", store, "out")
    elif request.param == "file uri":
        made = Layout.open((tmp_path / "out").as_uri())
    else:
        made = Layout.open(str(tmp_path / "out"))
    made.prepare()
    return made


def test_small_files_are_written_listed_read_and_deleted(layout):
    assert layout.list(PAGES) == []
    layout.write_bytes("pages/b.json", b"1")
    layout.write_bytes("pages/a.json", b"first")
    layout.write_bytes("pages/a.json", b"second")
    assert layout.list(PAGES) == ["pages/a.json", "pages/b.json"]
    assert layout.read_bytes("pages/a.json") == b"second"
    assert layout.size("pages/a.json") == 6
    layout.delete("pages/a.json")
    layout.delete("pages/a.json")
    assert not layout.exists("pages/a.json")
    assert layout.exists("pages/b.json")


def test_what_is_not_there_is_said_to_be_missing(layout):
    assert layout.list("_pagelake/runs/none") == []
    with pytest.raises(FileNotFoundError):
        layout.read_bytes("pages/none")
    with pytest.raises(FileNotFoundError):
        layout.size("pages/none")


def write_half(layout: Layout, name: str) -> None:
    with layout.write(name) as stream:
        stream.write(b"half")
        raise RuntimeError("in the middle")


def test_a_local_file_appears_whole_or_not_at_all(tmp_path):
    layout = Layout.open(str(tmp_path))
    layout.write_bytes("pages/a", b"old")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(layout, "pages/a")
    assert layout.read_bytes("pages/a") == b"old"
    assert layout.list(PAGES) == ["pages/a"]


def test_opening_touches_nothing(tmp_path):
    Layout.open(str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/out: cannot be written .* output\.uri"):
        Layout.open(str(tmp_path / "file" / "out")).prepare()


def test_a_place_that_cannot_be_written_is_refused():
    with pytest.raises(OutputError, match="output /proc/pagelake: cannot be written"):
        Layout.open("/proc/pagelake").prepare()


@pytest.mark.parametrize("uri", ["nosuch://bucket/x", "file://"])
def test_an_impossible_uri_is_an_output_error(uri):
    with pytest.raises(OutputError, match=f"output {uri}"):
        Layout.open(uri).prepare()


def test_a_layout_can_be_sent_to_another_process(layout):
    assert pickle.loads(pickle.dumps(layout)).list(PAGES) == []


def test_a_name_is_deleted_by_two_at_once(layout, monkeypatch):
    monkeypatch.setattr(Layout, "exists", lambda *_: True)
    layout.delete("pages/none")


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_local_file_that_cannot_be_finished_is_an_error_and_leaves_nothing(
    tmp_path, monkeypatch, call
):
    layout = Layout.open(str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match=r"No space left on device: '.*/pages/a'"),
        layout.write("pages/a") as stream,
    ):
        full() if call == "write" else stream.write(b"1")
    assert list((tmp_path / "pages").iterdir()) == []


def test_a_store_keeps_what_was_committed_when_a_block_raises(tmp_path):
    store = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    layout = Layout("test://out", store, "out")
    layout.prepare()
    layout.write_bytes("pages/a", b"committed")
    with pytest.raises(RuntimeError, match="in the middle"):
        write_half(layout, "pages/a")
    assert layout.read_bytes("pages/a") == b"committed"


def test_sizes_are_those_of_all_files_below(layout):
    layout.write_bytes("_pagelake/runs/plans.parquet", b"12")
    layout.write_bytes("_pagelake/lock", b"1")
    assert layout.sizes("_pagelake") == {
        "_pagelake/runs/plans.parquet": 2,
        "_pagelake/lock": 1,
    }
    assert layout.sizes("nowhere") == {}
