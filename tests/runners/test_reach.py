"""Jobs for clusters: what other machines cannot see is refused; nothing else travels by path."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from pipeline.errors import JobError
from pipeline.job import Job
from pipeline.runners.placement import actor_options, task_options
from pipeline.runners.reach import refuse_unshared
from pipeline.runners.recipe import prepare

REMOTE: dict[str, Any] = {
    "input": {"paths": ["s3://lake/in"]},
    "schema": "receipt.v1",
    "model": {"name": "nano"},
    "output": {"uri": "s3://lake/out"},
}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("output.uri", {"output": {"uri": "/home/me/out"}}),
        ("output.uri", {"output": {"uri": "file:///home/me/out"}}),
        (
            "output.table",
            {"output": {"uri": "s3://lake/out", "format": "delta", "table": "/home/me/table"}},
        ),
        ("input.paths", {"input": {"paths": ["s3://lake/in", "/home/me/scans/*.pdf"]}}),
        ("input.manifest", {"input": {"manifest": "/home/me/list.csv"}}),
        ("examples.pages", {"examples": [{"pages": "/home/me/a.png", "answer": "x"}]}),
        ("model.name", {"model": {"name": "/home/me/idefics2"}}),
        ("model.name", {"model": {"name": "file:///home/me/idefics2"}}),
        ("model.adapter", {"model": {"name": "nano", "adapter": "/home/me/lora"}}),
    ],
)
def test_what_lies_on_one_machine_is_refused_unless_all_share_its_folder(
    key: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(JobError, match=rf"^{key}: .* this machine only, and .*shared_paths$"):
        refuse_unshared(Job.model_validate(REMOTE | changes), "the cluster has others")
    shared = {"resources": {"shared_paths": ["/mnt/nfs", "/home/me"]}}
    refuse_unshared(Job.model_validate(REMOTE | changes | shared), "the cluster has others")


LONE_HEAD = """
import pipeline.runners.ray_data, ray
ray.init(address="local", num_cpus=0, include_dashboard=False, object_store_memory=100 << 20)
import pipeline.cli
pipeline.cli.main()
"""


def test_a_head_that_does_no_work_counts_on_others_before_they_are_there(
    tmp_path: Path, demo: Path
) -> None:
    (tmp_path / "job.yaml").write_text(
        yaml.safe_dump(
            {
                "input": {"paths": [str(demo / "documents" / "image-01.png")]},
                "task": "ocr",
                "model": {"family": "fake", "name": "fake?edge=224"},
                "output": {"uri": str(tmp_path / "out")},
            }
        )
    )
    ended = subprocess.run(
        [sys.executable, "-c", LONE_HEAD, "run", str(tmp_path / "job.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 2, ended.stderr
    assert f"output.uri: '{tmp_path}/out' is on this machine only, and Ray has no CPUs here" in (
        ended.stderr
    )


@pytest.mark.parametrize("uri", ["/mnt/nfs/../local", "file:///mnt/nfs/../local"])
def test_a_path_that_leads_out_of_a_shared_folder_is_not_shared(uri: str) -> None:
    job = REMOTE | {"output": {"uri": uri}, "resources": {"shared_paths": "/mnt/nfs"}}
    with pytest.raises(JobError, match=r"^output.uri: "):
        refuse_unshared(Job.model_validate(job), "the cluster has others")


def test_stores_hub_ids_and_the_bundled_model_are_everywhere() -> None:
    refuse_unshared(Job.model_validate(REMOTE), "the cluster has others")
    hub = {"model": {"name": "HuggingFaceM4/idefics2-8b", "adapter": "owner/lora"}}
    refuse_unshared(Job.model_validate(REMOTE | hub), "the cluster has others")


def test_a_shared_folder_is_a_whole_path() -> None:
    for wrong in ("mnt/nfs", "/", "//"):
        with pytest.raises(ValueError, match="whole path"):
            Job.model_validate(REMOTE | {"resources": {"shared_paths": wrong}})


def test_what_travels_to_workers_names_no_folder_of_this_machine() -> None:
    recipe = prepare(Job.model_validate(REMOTE), "run")
    assert str(Path(pipeline.__file__).parent).encode() not in pickle.dumps(recipe)


def test_placement_is_what_ray_is_asked_for() -> None:
    chosen = {
        "custom_per_actor": {"accelerator_type:A100": 0.001},
        "custom_per_task": {"cpu_node": 0.01},
        "max_restarts": 0,
    }
    job = Job.model_validate(REMOTE | {"resources": chosen})
    assert actor_options(job)["resources"] == {"accelerator_type:A100": 0.001}
    assert actor_options(job)["max_restarts"] == actor_options(job)["max_task_retries"] == 0
    assert task_options(job) == {"num_cpus": 1, "resources": {"cpu_node": 0.01}}
    plain = actor_options(Job.model_validate(REMOTE))
    assert (plain["resources"], plain["max_restarts"]) == (None, -1)
    assert plain["max_task_retries"] > 0
