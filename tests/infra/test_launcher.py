"""The cluster launcher's file, read by Ray's own code and held to EC2's own request."""

from __future__ import annotations

import logging
import re
import tomllib
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
WRITTEN: dict[str, Any] = yaml.safe_load((ROOT / "infra/ray/aws.yaml").read_text())


@pytest.fixture
def config(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The file with Ray's defaults filled in, found valid without a warning."""
    with caplog.at_level(logging.WARNING):
        prepared: dict[str, Any] = prepare_config(yaml.safe_load(yaml.safe_dump(WRITTEN)))
        validate_config(prepared)
    assert not caplog.records
    assert "".join(capsys.readouterr()) == ""
    return prepared


def test_ray_knows_every_key(config: dict[str, Any]) -> None:
    config["available_node_types"]["cpu"]["min_worker"] = 1
    with pytest.raises(Exception, match="min_worker"):
        validate_config(config)


def test_the_cluster_shrinks_to_little_and_runs_no_work_on_its_head(config: dict[str, Any]) -> None:
    nodes = config["available_node_types"]
    assert nodes[config["head_node_type"]]["resources"]["CPU"] == 0
    assert (nodes["cpu"]["min_workers"], nodes["gpu"]["min_workers"]) == (1, 0)
    assert nodes["gpu"]["resources"]["GPU"] == 1
    assert sum(node["max_workers"] for node in nodes.values()) <= config["max_workers"]
    for name in ("cpu", "gpu"):
        assert nodes[name]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


@pytest.mark.parametrize("name", WRITTEN["available_node_types"])
def test_ec2_knows_every_key_of_a_node(name: str) -> None:
    client = boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    shape = client.meta.service_model.operation_model("RunInstances").input_shape
    node = WRITTEN["available_node_types"][name]["node_config"]
    request = {**node, "MinCount": 1, "MaxCount": 1}
    assert not ParamValidator().validate(request, shape).has_errors()
    assert ParamValidator().validate({**request, "ImagesId": "x"}, shape).has_errors()


def test_the_head_can_start_workers(config: dict[str, Any]) -> None:
    """Ray's provider imports boto3 there, from the Python that Ray runs in."""
    assert config["head_setup_commands"] == config["setup_commands"] == WRITTEN["setup_commands"]
    (install,) = (one for one in config["head_setup_commands"] if "pagelake[" in one)
    assert "--python ~/venv/bin/python " in install
    named = re.search(r"pagelake\[([\w,]+)\] @ file", install)
    assert named is not None
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {requirement for extra in named[1].split(",") for requirement in extras[extra]}
    assert any(requirement.startswith("boto3") for requirement in wanted)


def test_what_is_put_on_the_nodes_is_there_and_pinned() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert WRITTEN["file_mounts"] == {"/home/ubuntu/pagelake": "dist"}
    assert "--wheel-dir dist" in makefile
    assert "cp constraints.txt dist/" in makefile
    commands = "\n".join(WRITTEN["setup_commands"])
    torch = re.search(r"^TORCH \?= (\S+)$", makefile, re.MULTILINE)
    assert torch is not None
    assert torch[1] in commands.split()
    assert "--constraint ~/pagelake/constraints.txt" in commands
    assert "poppler-utils" in commands
    for command in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "--metrics-export-port=8080" in WRITTEN[command][-1]
