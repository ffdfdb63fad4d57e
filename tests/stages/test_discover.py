from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recording_s3 import recording_s3
from s3_server import S3Server

from pipeline.errors import InputError, ItemError, PagelakeError, RunError
from pipeline.job import Input
from pipeline.lake import keys
from pipeline.lake.source import Source
from pipeline.lake.stores import Stores
from pipeline.records import MediaType
from pipeline.stages.discover import discover
from pipeline.store_settings import Store


def put(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%PDF-1.4")


def uris(*paths: Path | str) -> list[str]:
    return [document.uri for document in discover(Input(paths=tuple(map(str, paths))))]


def relative(folder: Path, found: list[str]) -> list[str]:
    return [str(Path(uri).relative_to(folder)) for uri in found]


def test_a_folder_is_walked_in_order_and_other_files_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "b.PDF", "a/z.png", "a/y.tiff", "c.txt", "a/README", ".hidden.pdf", ".git/x.pdf")
    found = discover(Input(paths=(str(tmp_path),)))
    assert found.ignored == 0
    documents = list(found)
    assert relative(tmp_path, [d.uri for d in documents]) == ["a/y.tiff", "a/z.png", "b.PDF"]
    assert [d.media_type for d in documents] == [MediaType.TIFF, MediaType.PNG, MediaType.PDF]
    assert found.ignored == 2


def test_a_document_carries_size_and_modification_time(tmp_path: Path) -> None:
    put(tmp_path, "a.pdf")
    os.utime(tmp_path / "a.pdf", ns=(1, 1_700_000_000_123_456_789))
    (document,) = discover(Input(paths=(str(tmp_path / "a.pdf"),)))
    assert (document.size, document.modified) == (8, "1700000000123456789")
    assert document.uri == str(tmp_path / "a.pdf")
    assert document.source == {}


def test_a_named_file_is_taken_whatever_its_extension(tmp_path: Path) -> None:
    put(tmp_path, "scan.dat", ".hidden")
    found = list(discover(Input(paths=(str(tmp_path / "scan.dat"), str(tmp_path / ".hidden")))))
    assert [document.media_type for document in found] == [MediaType.PDF, MediaType.PDF]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.pdf", ["a.pdf", "b.pdf"]),
        ("[b]*", ["b.pdf"]),
        ("?.pdf", ["a.pdf", "b.pdf"]),
        ("**/*.pdf", ["a.pdf", "b.pdf", "x/c.pdf", "x/y/d.pdf"]),
        ("**", ["a.pdf", "b.pdf", "x/c.pdf", "x/y/d.pdf"]),
        ("x/**", ["x/c.pdf", "x/y/d.pdf"]),
        ("**/y/*.pdf", ["x/y/d.pdf"]),
        ("**/d.pdf", ["x/y/d.pdf"]),
        ("*/c.pdf", ["x/c.pdf"]),
        ("**/**/*.pdf", ["a.pdf", "b.pdf", "x/c.pdf", "x/y/d.pdf"]),
        ("*.dat", ["raw.dat"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    put(tmp_path, "a.pdf", "b.pdf", "x/c.pdf", "x/y/d.pdf", "raw.dat", ".h.pdf")
    assert relative(tmp_path, uris(tmp_path / pattern)) == expected


def test_a_wildcard_without_extension_passes_over_other_types(tmp_path: Path) -> None:
    put(tmp_path, "a.pdf", "notes.txt")
    found = discover(Input(paths=(f"{tmp_path}/*",)))
    assert relative(tmp_path, [document.uri for document in found]) == ["a.pdf"]
    assert found.ignored == 1


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    put(tmp_path, "scan[1].pdf", "scan1.pdf")
    assert relative(tmp_path, uris(tmp_path / "scan[1].pdf")) == ["scan[1].pdf"]


def test_a_folder_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    put(tmp_path, "project [v2]/a.pdf", "b.pdf")
    assert uris(tmp_path / "project [v2]" / "*.pdf") == [f"{tmp_path}/project [v2]/a.pdf"]


def test_the_same_file_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "a.pdf", "b.pdf")
    monkeypatch.chdir(tmp_path)
    found = uris("a.pdf", tmp_path, "*.pdf", "./a.pdf", f"file://{tmp_path}/b.pdf")
    assert relative(tmp_path, found) == ["a.pdf", "b.pdf"]


def test_documents_are_told_apart_by_more_than_eight_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight bytes of hash may be the same for two documents of a very large input."""
    put(tmp_path, "a.pdf", "b.pdf")

    class Colliding:
        def __init__(self, data: bytes, digest_size: int) -> None:
            self._data, self._size = data, digest_size

        def digest(self) -> bytes:
            return (bytes(8) + hashlib.sha256(self._data).digest())[: self._size]

    monkeypatch.setattr(keys.hashlib, "blake2b", Colliding)
    assert relative(tmp_path, uris(tmp_path, tmp_path)) == ["a.pdf", "b.pdf"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nowhere/a.pdf", "is no file or folder; mend input.paths"),
        ("/nowhere/*.pdf", "matches no file"),
        ("nope://bucket/a.pdf", "cannot be listed: unknown scheme nope://; there are s3://"),
        ("a\0b.pdf", "is no file or folder"),
    ],
)
def test_a_named_path_that_is_not_there_is_the_users_mistake(path: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        discover(Input(paths=(path,)))
    assert "\n" not in str(caught.value)


def test_a_socket_or_fifo_is_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pdf")
    found = discover(Input(paths=(str(tmp_path),)))
    assert list(found) == []
    assert found.ignored == 1
    with pytest.raises(InputError, match="is no file or folder"):
        discover(Input(paths=(str(tmp_path / "a.pdf"),)))


def test_links_to_files_are_followed_and_links_to_folders_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "real/a.pdf")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "real" / "b.pdf").symlink_to(tmp_path / "real" / "a.pdf")
    (tmp_path / "real" / "broken.pdf").symlink_to("gone")
    found = discover(Input(paths=(str(tmp_path),)))
    sizes = {Path(document.uri).name: document.size for document in found}
    assert sizes == {"a.pdf": 8, "b.pdf": 8, "broken.pdf": -1}
    assert found.ignored == 1


def test_odd_names(tmp_path: Path) -> None:
    put(tmp_path, "new\nline.pdf", "ünï.pdf", " .pdf")
    (tmp_path / os.fsdecode(b"caf\xe9.pdf")).write_bytes(b"%PDF-1.4")
    found = uris(tmp_path)
    assert len(found) == 4
    pa.array(found)  # Arrow takes Unicode only
    odd = f"file://{tmp_path}/caf%E9.pdf"
    assert odd in found
    assert uris(odd) == [odd]
    assert uris(f"file://{tmp_path}/new%0Aline.pdf") == [f"{tmp_path}/new\nline.pdf"]


def manifest_rows() -> list[dict[str, str]]:
    return [
        {"id": "007", "uri": "in/a.pdf", "note": "two\nlines"},
        {"id": "008", "uri": "in/gone.pdf", "note": ""},
        {"id": "009", "uri": "in/a.pdf", "note": "again"},
    ]


def write_csv(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_csv_manifest(tmp_path: Path) -> None:
    put(tmp_path, "in/a.pdf")
    write_csv(tmp_path / "m.csv", manifest_rows())
    found = list(discover(Input(manifest=str(tmp_path / "m.csv"))))
    assert [(d.uri, d.size) for d in found] == [
        (f"{tmp_path}/in/a.pdf", 8),
        (f"{tmp_path}/in/gone.pdf", -1),
    ]
    assert [dict(d.source) for d in found] == [{"id": "007", "note": "two\nlines"}, {"id": "008"}]


def test_a_parquet_manifest(tmp_path: Path) -> None:
    put(tmp_path, "a.pdf")
    table = pa.table(
        {
            "file": ["a.pdf", f"{tmp_path}/b.pdf"],
            "n": pa.array([1, None], pa.int64()),
            "paid": [True, False],
            "kind": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "m.parquet")
    found = list(discover(Input(manifest=str(tmp_path / "m.parquet"), uri_column="file")))
    assert [(d.uri, d.size) for d in found] == [(f"{tmp_path}/a.pdf", 8), (f"{tmp_path}/b.pdf", -1)]
    assert found[0].source == {"n": "1", "paid": "true", "kind": "x"}
    assert found[1].source == {"paid": "false", "kind": "y"}


def test_a_long_manifest_keeps_its_order(tmp_path: Path) -> None:
    rows = [{"uri": f"{i}.pdf", "i": str(i)} for i in range(3000)]
    write_csv(tmp_path / "m.csv", rows)
    found = discover(Input(manifest=str(tmp_path / "m.csv")))
    assert [document.source["i"] for document in found] == [row["i"] for row in rows]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.pdf\n", "has no column 'uri'; set input.uri_column to one of path"),
        ("", "has no column 'uri'"),
        ("uri,uri\na,b\n", "column 'uri' appears twice"),
        ("uri,x\n,1\n", "row 1 has no uri"),
        ("uri\na.pdf,b.pdf\n", "line 2: 2 cells under 1 columns"),
        ('uri\n"a.pdf\n', "line 2: unexpected end of data"),
    ],
)
def test_a_broken_csv_manifest(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        list(discover(Input(manifest=str(tmp_path / "m.csv"))))


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIAKEY:SECRET@bucket/a.pdf",
        " s3://AKIAKEY:SEC/SECRET@bucket/a.pdf",
        "https://SECRET@host/a.pdf",
    ],
)
def test_a_manifest_row_with_credentials_ends_the_listing(tmp_path: Path, uri: str) -> None:
    write_csv(tmp_path / "m.csv", [{"uri": "a.pdf"}, {"uri": uri}])
    pq.write_table(pa.table({"uri": ["a.pdf", uri]}), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(InputError) as caught:
            list(discover(Input(manifest=str(tmp_path / name))))
        assert str(caught.value) == (
            f"manifest '{tmp_path / name}': row 2: the URI holds a user, password or key; "
            "take it out and use the environment or a profile"
        )


def test_a_manifest_that_is_missing_or_not_what_it_is_called(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest .* cannot be read"):
        discover(Input(manifest=str(tmp_path / "m.csv")))
    (tmp_path / "m.parquet").write_text("uri\n")
    with pytest.raises(InputError, match=r"manifest .* cannot be read"):
        discover(Input(manifest=str(tmp_path / "m.parquet")))
    (tmp_path / "m.csv").write_bytes(b"uri\n\xff.pdf\n")
    with pytest.raises(InputError, match=r"manifest .*utf-8"):
        list(discover(Input(manifest=str(tmp_path / "m.csv"))))
    pq.write_table(pa.table({"uri": ["a"], "tags": [["x"]]}), tmp_path / "n.parquet")
    with pytest.raises(InputError, match="column 'tags' is a list"):
        discover(Input(manifest=str(tmp_path / "n.parquet")))


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put files into s3://bucket, which the environment alone says how to reach."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    s3.make_bucket("bucket")

    def put_all(*names: str, data: bytes = b"%PDF-1.4") -> None:
        for name in names:
            with s3.filesystem.open_output_stream(f"bucket/{name}") as stream:
                stream.write(data)

    return put_all


def test_a_bucket(bucket: Callable[..., None]) -> None:
    bucket("in/b c.pdf", "in/a.pdf", "in/x/d#1.pdf", "in/x/e.txt", "in/.h.pdf")
    found = discover(Input(paths=("s3://bucket/in",)))
    documents = list(found)
    assert [document.uri for document in documents] == [
        "s3://bucket/in/a.pdf",
        "s3://bucket/in/b%20c.pdf",
        "s3://bucket/in/x/d%231.pdf",
    ]
    assert all(document.size == 8 and document.modified for document in documents)
    assert found.ignored == 1
    assert Source().content(documents[1].uri) == b"%PDF-1.4"
    assert uris("s3://bucket/in/b c.pdf", "s3://bucket/in/b%20c.pdf") == [documents[1].uri]
    assert uris("s3://bucket/**/d*.pdf") == [documents[2].uri]
    assert uris("s3://bucket/in/a.pdf?region=x") == ["s3://bucket/in/a.pdf?region=x"]


def test_a_manifest_in_a_bucket(bucket: Callable[..., None]) -> None:
    bucket("lists/a.pdf", "b.pdf")
    rows = "uri\na.pdf\ns3://bucket/b.pdf\nnope://x/c.png\ngone.pdf\n"
    bucket("lists/m.csv", data=rows.encode())
    found = discover(Input(manifest="s3://bucket/lists/m.csv"))
    assert [(document.uri, document.size) for document in found] == [
        ("s3://bucket/lists/a.pdf", 8),
        ("s3://bucket/b.pdf", 8),
        ("nope://x/c.png", -1),
        ("s3://bucket/lists/gone.pdf", -1),
    ]


def test_a_manifest_that_is_replaced_while_it_is_read_ends_the_listing(
    bucket: Callable[..., None],
) -> None:
    def rows(name: str) -> bytes:
        return b"uri,note\n" + b"".join(
            b"s3://bucket/%s/%06d.pdf,%s\n" % (name.encode(), n, b"x" * 1000) for n in range(12_000)
        )

    bucket("m.csv", data=rows("old"))
    found = discover(Input(manifest="s3://bucket/m.csv", trust_manifest=True))
    assert next(found).uri == "s3://bucket/old/000000.pdf"
    bucket("m.csv", data=rows("new"))
    with pytest.raises(RunError, match=r"m\.csv changed while it was read; run again"):
        list(found)


def test_a_trusted_manifest_costs_its_store_no_look(tmp_path: Path) -> None:
    with recording_s3(["in/a.pdf"]) as s3:
        rows = [
            {"uri": "s3://b/in/a.pdf", "size": "8", "modified": "2026-01-02"},
            {"uri": "s3://b/in/a.pdf", "size": "8", "modified": "2026-01-02"},
            {"uri": "s3://b/in/b.pdf", "size": "?", "modified": ""},
        ]
        stores = Stores.of({"s3://": Store(endpoint=s3.endpoint, anonymous=True)})
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
        manifest = Input(manifest=str(tmp_path / "m.parquet"), trust_manifest=True)
        found = list(discover(manifest, stores))
        assert [(one.uri, one.size, one.modified) for one in found] == [
            ("s3://b/in/a.pdf", 8, "told: 2026-01-02"),
            ("s3://b/in/b.pdf", -1, "told: "),
        ]
        source = Source(stores)
        source.check_unchanged(found[0].uri, found[0].size, found[0].modified)
        assert s3.requests == []
        with pytest.raises(ItemError, match="there is no such object"):
            source.content(found[1].uri)


@pytest.mark.parametrize(("status", "kind"), [(503, RunError), (403, InputError)])
def test_a_store_that_does_not_say_what_is_there_ends_the_listing(
    tmp_path: Path, status: int, kind: type[PagelakeError]
) -> None:
    with recording_s3(["in/a b.pdf"]) as s3:
        rows = [{"uri": f"s3://b/in/{name}"} for name in ("a b.pdf", "gone 1.pdf", "x//y 2.pdf")]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
        stores = Stores.of({"s3://": Store(endpoint=s3.endpoint, anonymous=True, attempts=1)})
        manifest = Input(manifest=str(tmp_path / "m.parquet"))
        assert [(one.uri, one.size) for one in discover(manifest, stores)] == [
            ("s3://b/in/a%20b.pdf", 8),
            ("s3://b/in/gone%201.pdf", -1),
            ("s3://b/in/x//y%202.pdf", -1),
        ]
        s3.fault = lambda _: status
        with pytest.raises(kind, match=rf"broke off: s3://b/in/a b.pdf.*{status}.*run again"):
            list(discover(manifest, stores))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_input_whose_store_is_away_fails_the_run(tmp_path: Path, suffix: str) -> None:
    away = Stores.of({"s3://": Store(endpoint="http://127.0.0.1:9", anonymous=True, attempts=1)})
    for path in ("s3://b/in/", "s3://b/in/*.pdf"):
        with pytest.raises(RunError, match=r"cannot be listed: .* does not answer .*; run again l"):
            discover(Input(paths=(path,)), away)
    with pytest.raises(RunError, match=r"cannot be read: .* does not answer .*; run again later"):
        discover(Input(manifest=f"s3://b/m.{suffix}"), away)
    with recording_s3([f"m.{suffix}"]) as s3:
        s3.fault = lambda request: 503 if request.method == "GET" else None
        stores = Stores.of({"s3://": Store(endpoint=s3.endpoint, anonymous=True, attempts=1)})
        with pytest.raises(RunError, match=r"cannot be read: .* answers 503 .*; run again later"):
            discover(Input(manifest=f"s3://b/m.{suffix}"), stores)


def test_a_folder_that_goes_away_while_it_is_listed_fails_the_run(tmp_path: Path) -> None:
    put(tmp_path, "a/a.pdf", "b/b.pdf")
    found = discover(Input(paths=(str(tmp_path / "a"), str(tmp_path / "b"))))
    assert next(found).uri.endswith("a.pdf")
    shutil.rmtree(tmp_path / "b")
    with pytest.raises(RunError, match=r"broke off: .*No such file or directory.*; run again"):
        list(found)


def test_a_manifest_is_not_failed_row_by_row_for_want_of_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    write_csv(tmp_path / "m.csv", [{"uri": "s3://b/in/a.pdf"}])
    stores = Stores.of({"s3://": Store(endpoint="http://127.0.0.1:9")})
    with pytest.raises(InputError, match="no credentials found"):
        list(discover(Input(manifest=str(tmp_path / "m.csv")), stores))
