"""What a job and the environment say of a store reaches its endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from recording_s3 import BODY, Numbered, RecordingS3, recording_s3

from pipeline.errors import InputError, ItemError, JobError, OutputError, RunError
from pipeline.jobfile import load_job
from pipeline.lake.layout import Layout
from pipeline.lake.lock import Lock
from pipeline.lake.source import Source
from pipeline.lake.store_clients import bucket_of
from pipeline.lake.stores import Stores
from pipeline.store_settings import Store

Profiles = Callable[[str, str], None]


@pytest.fixture
def s3() -> Iterator[RecordingS3]:
    with recording_s3(Numbered(3)) as server:
        yield server


@pytest.fixture(autouse=True)
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Profiles:
    """Write ~/.aws/config and ~/.aws/credentials; nothing of this machine's is looked at."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))

    def write(config: str, credentials: str) -> None:
        (tmp_path / "config").write_text(config)
        (tmp_path / "credentials").write_text(credentials)

    return write


def read(s3: RecordingS3 | None, **settings: object) -> bytes | Path:
    endpoint = {"endpoint": s3.endpoint} if s3 else {}
    store = Store.model_validate(endpoint | settings)
    return Source(Stores.of({"s3://": store})).content("s3://b/scans/00000001.pdf")


def test_the_keys_and_region_of_a_profile_arrive(
    s3: RecordingS3, profiles: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other")
    profiles(
        "[profile mine]\nregion = eu-north-1\n",
        "[mine]\naws_access_key_id = MINE\naws_secret_access_key = x\n",
    )
    assert read(s3, profile="mine") == BODY
    assert "Credential=MINE/" in s3.requests[-1].authorization
    assert "/eu-north-1/s3/" in s3.requests[-1].authorization
    read(s3, region="mars-1")
    assert "Credential=OTHER/" in s3.requests[-1].authorization
    assert "/mars-1/s3/" in s3.requests[-1].authorization


def test_the_environment_alone_is_enough(
    s3: RecordingS3, profiles: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles("", "[mine]\naws_access_key_id = MINE\naws_secret_access_key = x\n")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("AWS_REGION", "eu-west-9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert Source().content("s3://b/scans/00000002.pdf") == BODY
    assert "Credential=MINE/" in s3.requests[0].authorization
    assert "/eu-west-9/s3/" in s3.requests[0].authorization


def test_anonymous_signs_nothing(s3: RecordingS3) -> None:
    assert read(s3, anonymous=True) == BODY
    assert s3.requests[0].authorization == ""


def of_the_object(s3: RecordingS3) -> int:
    return sum("scans" in request.path for request in s3.requests)


def test_a_request_is_tried_as_often_as_the_job_says(s3: RecordingS3) -> None:
    s3.fault = lambda request: 503 if "scans" in request.path else None
    with pytest.raises(ItemError, match=r"s3://b/scans/00000001.pdf: the endpoint .* \(3 tries\)"):
        read(s3, anonymous=True, attempts=3)
    assert of_the_object(s3) == 3
    s3.requests.clear()
    s3.fault = lambda _: 503 if len(s3.requests) < 3 else None
    assert read(s3, anonymous=True, attempts=3) == BODY


@pytest.mark.parametrize("fault", [503, 429, "hang"])
def test_a_store_that_is_away_says_nothing_of_a_document(s3: RecordingS3, fault: int | str) -> None:
    s3.fault = lambda _: fault
    with pytest.raises(RunError, match=r"reading the input broke off: .*\(1 tries\); run again"):
        read(s3, anonymous=True, attempts=1, timeout_s=0.3)


def test_an_upload_that_fails_is_taken_back(s3: RecordingS3) -> None:
    store = Store(endpoint=s3.endpoint, anonymous=True, attempts=1)
    layout = Layout.open("s3://b/out", Stores.of({"s3://": store}))
    s3.fault = lambda request: 503 if request.query.get("partNumber") == "2" else None
    with pytest.raises(OSError, match=r"s3://b/out/pages/x: .* answers 503"):
        layout.write_bytes("pages/x", bytes(12 << 20))
    # Another part, sent at the same time, may come after it.
    asked = [(one.method, one.query) for one in s3.requests if one.method != "PUT"]
    assert asked[-1] == ("DELETE", {"uploadId": "u"})


def test_a_store_may_be_silent_only_so_long(s3: RecordingS3) -> None:
    s3.fault = lambda request: "hang" if "scans" in request.path else None
    began = time.monotonic()
    with pytest.raises(ItemError, match=r"does not answer \(1 tries\)"):
        read(s3, anonymous=True, attempts=1, timeout_s=0.3)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("status", "code", "kind", "line"),
    [
        (404, "NoSuchBucket", InputError, "s3://b: no such bucket"),
        (404, "NoSuchKey", ItemError, "s3://b/scans/00000001.pdf: there is no such object"),
        (403, "AccessDenied", ItemError, "access denied (403); check the keys or set stores.anon"),
        (403, "InvalidAccessKeyId", InputError, "access denied (403); check the keys"),
        (403, "ExpiredToken", InputError, "access denied (403); check the keys"),
        (301, "PermanentRedirect", ItemError, "the bucket is in another region; set stores.region"),
    ],
)
def test_what_is_final_fails_at_once(
    s3: RecordingS3, status: int, code: str, kind: type[Exception], line: str
) -> None:
    s3.fault, s3.code = lambda _: status, code
    with pytest.raises(kind) as caught:
        read(s3, anonymous=True)
    assert line in str(caught.value)
    assert of_the_object(s3) == 1


def test_keys_that_run_out_are_told_of_by_the_listing_where_a_look_has_no_words(
    s3: RecordingS3,
) -> None:
    """An answer to HEAD has no body that could say which of the two it is."""
    store = Store(endpoint=s3.endpoint, anonymous=True, attempts=1)
    source = Source(Stores.of({"s3://": store}))
    s3.fault, s3.code = lambda _: 403, "ExpiredToken"
    with pytest.raises(InputError, match="check the keys"):
        source.check_unchanged("s3://b/scans/00000001.pdf", 1, "then")
    s3.code = "AccessDenied"
    with pytest.raises(ItemError, match="access denied"):
        source.check_unchanged("s3://b/scans/00000001.pdf", 1, "then")


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"endpoint": "http://nosuch.invalid", "anonymous": True}, "nosuch.invalid has no address"),
        ({"endpoint": "http://127.0.0.1:9"}, "no credentials found; set AWS_ACCESS_KEY_ID"),
        ({"endpoint": "http://127.0.0.1:9", "profile": "x"}, "there is no profile 'x' in ~/.aws"),
    ],
)
def test_a_store_that_cannot_be_used_refuses_the_output(
    settings: dict[str, object], line: str
) -> None:
    with pytest.raises(OutputError) as caught:
        Layout.open("s3://b/out", Stores.of({"s3://": Store.model_validate(settings)})).prepare()
    assert line in str(caught.value)


def test_an_output_whose_store_is_away_fails_the_run(s3: RecordingS3) -> None:
    """Nothing needs to be mended, as it does of a bucket that there is not."""

    def layout(endpoint: str) -> Layout:
        store = Store(endpoint=endpoint, anonymous=True, attempts=2)
        return Layout.open("s3://b/out", Stores.of({"s3://": store}))

    silent = r"the endpoint http://127\.0\.0\.1:9 does not answer \(2 tries\)\); run again later"
    with pytest.raises(RunError, match=rf"cannot be written \(.*{silent}"):
        layout("http://127.0.0.1:9").prepare()
    with pytest.raises(RunError, match=rf"cannot be written \(.*{silent}"):
        Lock(layout("http://127.0.0.1:9"), "run").__enter__()
    with pytest.raises(RunError, match=rf"cannot be read \(.*{silent}"):
        layout("http://127.0.0.1:9").is_output()
    for status in (429, 503):
        s3.fault = lambda _, status=status: status
        with pytest.raises(RunError, match=rf"answers {status} \(2 tries\)\); run again later"):
            layout(s3.endpoint).prepare()
    for status, said in [(403, "access denied"), (400, "answers 400"), (501, "answers 501")]:
        s3.fault = lambda _, status=status: status
        with pytest.raises(OutputError, match=f"{said}.*; choose another"):
            layout(s3.endpoint).prepare()


def test_keys_of_a_login_need_amazons_library(
    s3: RecordingS3, profiles: Profiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    profiles(
        "[profile one]\nrole_arn = arn:aws:iam::1:role/x\n[profile two]\n"
        'credential_process = echo \'{"Version": 1, "AccessKeyId": "FOUND", '
        '"SecretAccessKey": "s"}\'\n',
        "",
    )
    read(s3, profile="two")
    assert "Credential=FOUND/" in s3.requests[0].authorization
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(ItemError, match=r"pip install pagelake\[aws\]"):
        read(s3, profile="one")


@pytest.mark.parametrize(
    ("uri", "settings", "found"),
    [
        ("s3://b/x/y", {}, ("s3", "s3://b", "b", None)),
        ("gs://b/x", {}, ("gs", "gs://b", "b", None)),
        ("az://c/x", {"account": "me"}, ("az", "az://c", "c", "me")),
        ("abfs://c@me.dfs.core.windows.net/x", {}, ("az", None, "c", "me")),
        ("abfss://c@me/x", {"account": "me"}, ("az", None, "c", "me")),
    ],
)
def test_a_uri_names_a_bucket(
    uri: str, settings: dict[str, str], found: tuple[str | None, ...]
) -> None:
    bucket = bucket_of(uri, Store.model_validate(settings))
    root = found[1] or uri.removesuffix("/x")
    assert (bucket.kind, bucket.root, bucket.name, bucket.store.account) == (
        found[0],
        root,
        *found[2:],
    )


@pytest.mark.parametrize(
    ("uri", "line"),
    [
        ("s3:///x", "names no bucket; write s3://bucket/folder"),
        ("az://c/x", "names no storage account; set stores.account"),
        ("s3://b/x?nonsense=1", "has a query that is not understood"),
    ],
)
def test_a_uri_that_names_none_is_refused(
    uri: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match=line.replace("?", r"\?")):
        Layout.open(uri)


@pytest.mark.parametrize(
    ("beginning", "settings", "line"),
    [
        ("bucket", "{}", "'bucket' must begin with one of s3://, gs://"),
        ("hdfs://x", "{}", "must begin with one of"),
        ("s3://", "{account: me}", "account is for az:// stores; remove it"),
        ("gs://", "{profile: me}", "profile is for s3:// stores; remove it"),
        ("az://", "{region: x}", "region is for s3:// stores; remove it"),
        ("s3://", "{profile: me, anonymous: true}", "remove profile or anonymous"),
    ],
)
def test_settings_that_do_nothing_are_refused(
    tmp_path: Path, beginning: str, settings: str, line: str
) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(
        f"input: {{paths: x}}\nschema: receipt.v1\noutput: {{uri: out}}\n"
        f"stores: {{'{beginning}': {settings}}}\n"
    )
    with pytest.raises(JobError) as caught:
        load_job(str(job))
    assert line in str(caught.value)


def test_a_body_that_is_cut_is_asked_for_again(s3: RecordingS3) -> None:
    faults = iter(["cut", "stall", None, "cut", "cut", "cut"])
    s3.fault = lambda _: next(faults, None)
    assert read(s3, anonymous=True, attempts=3, timeout_s=0.5) == BODY
    with pytest.raises(ItemError, match="broke off its answer"):
        read(s3, anonymous=True, attempts=3)
    assert of_the_object(s3) == 6


def test_a_range_that_is_cut_is_asked_for_again(s3: RecordingS3) -> None:
    s3.fault = lambda _: "cut" if len(s3.requests) in (2, 3) else None
    store = Store(endpoint=s3.endpoint, anonymous=True, attempts=3)
    layout = Layout.open("s3://b/scans", Stores.of({"s3://": store}))
    with layout.open_input("00000001.pdf") as file:
        assert file.read() == BODY
    assert len(s3.requests) == 4


def test_a_password_in_an_endpoint_of_the_environment_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:S3CRET@127.0.0.1:9")
    lake = bucket_of("s3://lake/out", Store())
    assert lake.where == "the endpoint http://127.0.0.1:9"
