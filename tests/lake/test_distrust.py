"""What an output says of itself is checked before it is believed."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OutputError
from pipeline.lake.layout import checked_name
from pipeline.lake.ledger import Commit, Manifest

COMMIT: dict[str, Any] = {
    "run_id": "r1",
    "fingerprint": "f1",
    "name": "a",
    "file": "pages/a.parquet",
    "n_rows": 1,
    "states": {"ok": 1},
    "failures": {},
    "written_at": "2024-05-06T07:08:09+00:00",
}
PROVENANCE = (
    "run_id task schema_id model_id model_revision prompt_hash pipeline_version fingerprint"
)
MANIFEST: dict[str, Any] = {
    "format_version": 1,
    "provenance": dict.fromkeys(PROVENANCE.split(), "x"),
    "schema": {"type": "object"},
    "runs": ["r1"],
    "pages": ["pages/a.parquet"],
    "documents": ["documents/a.parquet"],
    "plans": ["_pagelake/runs/r1/plans.parquet"],
    "counts": {"pages": {}, "documents": {}, "failures": {}, "looks": {}},
    "finished_at": "2024-05-06T07:08:09+00:00",
    "folded": {},
}
COMMIT_PATH, MANIFEST_PATH = "/o/_pagelake/commits/a.json", "/o/_pagelake/manifest.json"
TRICKS = (
    "pages/../../etc/passwd",
    "/etc/passwd",
    "pages//etc/passwd",
    "pages/./a.parquet",
    "pages/..\\..\\a",
    "pages/a\0.parquet",
    "pages/a\n.parquet",
    "elsewhere/a.parquet",
    "pages",
    "pages/",
    "",
)

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def with_changes(fields: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Give any JSON, or the fields with some of them replaced by any JSON."""
    changes = st.dictionaries(st.sampled_from(sorted(fields)), values, max_size=2)
    return values | changes.map(lambda changed: fields | changed)


def test_what_is_whole_comes_back() -> None:
    assert Commit.from_json(json.dumps(COMMIT).encode(), COMMIT_PATH).file == "pages/a.parquet"
    manifest = Manifest.from_json(json.dumps(MANIFEST).encode(), MANIFEST_PATH)
    assert json.loads(manifest.to_json()) == MANIFEST


@settings(max_examples=40, deadline=None)
@given(with_changes(COMMIT), with_changes(MANIFEST), st.binary(max_size=8))
def test_any_json_is_read_or_refused_in_our_words(commit: Any, manifest: Any, end: bytes) -> None:
    for read, value, path in (
        (Commit.from_json, commit, COMMIT_PATH),
        (Manifest.from_json, manifest, MANIFEST_PATH),
    ):
        for text in (json.dumps(value).encode(), json.dumps(value).encode() + end):
            with suppress(OutputError):
                read(text, path)  # type: ignore[operator]


@pytest.mark.parametrize("name", TRICKS)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no file in pages/"):
        checked_name(name, "pages")
    with pytest.raises(OutputError, match=r"a\.json is damaged \(file: .* delete it, and run"):
        Commit.from_json(json.dumps(COMMIT | {"file": name}).encode(), COMMIT_PATH)
    for field in ("pages", "documents", "plans"):
        text = json.dumps(MANIFEST | {field: [name.replace("pages", field)]}).encode()
        with pytest.raises(OutputError, match=rf"manifest\.json is damaged \({field}\.0: "):
            Manifest.from_json(text, MANIFEST_PATH)


def test_a_commit_under_another_name_is_refused() -> None:
    for name in ("b", "../a", "../commits/a"):
        with pytest.raises(OutputError, match="it is the commit"):
            Commit.from_json(json.dumps(COMMIT | {"name": name}).encode(), COMMIT_PATH)


def test_a_time_without_a_zone_is_refused_and_not_compared() -> None:
    with pytest.raises(OutputError, match=r"written_at: .*timezone"):
        Commit.from_json(
            json.dumps(COMMIT | {"written_at": "2024-05-06T07:08:09"}).encode(), COMMIT_PATH
        )


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"\xff", b'{"format_version": "x"}'])
def test_a_damaged_file_is_named_with_its_mend(output: Any, text: bytes) -> None:
    output.layout.write_bytes("_pagelake/manifest.json", text)
    uri = output.layout.uri
    with pytest.raises(OutputError, match=f"output: {uri}/_pagelake/manifest.json is damaged"):
        output.ledger.manifest()
    output.layout.delete("_pagelake/manifest.json")
    output.layout.write_bytes("_pagelake/commits/x.json", text)
    with pytest.raises(OutputError, match=r"commits/x\.json is damaged .*delete it, and run again"):
        output.ledger.snapshot()
