"""What the clients of Delta Lake and Iceberg are told of a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import OutputError
from pipeline.lake.store_clients import Bucket, bucket_of
from pipeline.lake.table_stores import delta_options, iceberg_properties
from pipeline.store_settings import Store

HERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile with keys, beside others in the environment."""
    keys = tmp_path / "credentials"
    keys.write_text("[lake]\naws_access_key_id = mine\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "theirs")
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


def bucket(uri: str, **settings: Any) -> Bucket:
    return bucket_of(uri, Store(**settings))


def test_a_profile_signs_with_its_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    lake = bucket("s3://lake/t", profile="lake", endpoint=HERE)
    assert delta_options(lake)["aws_access_key_id"] == "mine"
    assert iceberg_properties(lake, {})["s3.secret-access-key"] == "secret"
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of theirs")
    with pytest.raises(OutputError, match="AWS_SESSION_TOKEN does not belong"):
        delta_options(lake)


def test_a_catalogs_own_keys_are_not_mixed_with_a_profiles() -> None:
    own = {"s3.access-key-id": "own", "s3.secret-access-key": "own"}
    found = iceberg_properties(bucket("s3://lake/t", profile="lake", endpoint=HERE), own)
    assert (found["s3.access-key-id"], found["s3.endpoint"]) == ("own", HERE)


def test_an_endpoint_of_the_environment_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", HERE)
    options = delta_options(bucket("s3://lake/t"))
    assert (options["aws_endpoint_url"], options["allow_http"]) == (HERE, "true")
    assert iceberg_properties(bucket("s3://lake/t"), {})["s3.endpoint"] == HERE


def test_attempts_and_pauses_are_those_of_the_job() -> None:
    options = delta_options(bucket("s3://lake/t", endpoint=HERE, attempts=3, timeout_s=0.5))
    assert (options["max_retries"], options["timeout"]) == ("2", "500ms")


def test_other_stores_get_their_endpoint_and_no_keys_where_none_are_wanted() -> None:
    public = {"endpoint": HERE, "anonymous": True}
    gs = delta_options(bucket("gs://lake/t", **public))
    assert (gs["google_base_url"], gs["google_skip_signature"]) == (HERE, "true")
    az = delta_options(bucket("az://lake/t", account="a", **public))
    assert (az["azure_endpoint"], az["azure_skip_signature"]) == (HERE, "true")
    assert gs["allow_http"] == az["allow_http"] == "true"


def test_iceberg_gets_no_settings_of_another_store() -> None:
    assert iceberg_properties(bucket("gs://lake/t", endpoint=HERE), {}) == {
        "gcs.service.host": HERE
    }
    lake = bucket("az://lake/t", account="a", endpoint=HERE)
    with pytest.raises(OutputError, match=r"stores\.endpoint: cannot be handed on to Iceberg"):
        iceberg_properties(lake, {})
    assert "adls.blob-storage-authority" in iceberg_properties(
        lake, {"adls.blob-storage-authority": "127.0.0.1:9"}
    )
