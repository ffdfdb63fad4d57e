"""The manifests, held to KubeRay's and Kubernetes' own schemas, and read by Ray's autoscaler."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)

from pipeline.job import Job, Resources

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/kuberay"
SCHEMA = json.loads((FOLDER / "schema/kuberay-v1.7.0.json").read_text())
KUBERNETES = "1.33"

Manifest = dict[str, Any]


def manifests(name: str) -> dict[str, Manifest]:
    return {one["kind"]: one for one in yaml.safe_load_all((FOLDER / name).read_text())}


JOB, CLUSTER = manifests("rayjob.yaml"), manifests("raycluster.yaml")
SPECS = {
    "rayjob": JOB["RayJob"]["spec"]["rayClusterSpec"],
    "raycluster": CLUSTER["RayCluster"]["spec"],
}


def groups(spec: Manifest) -> list[Manifest]:
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def check_kubernetes(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.mark.parametrize(
    "manifest", [JOB["RayJob"], CLUSTER["RayCluster"]], ids=lambda m: m["kind"]
)
def test_kuberay_knows_every_key(manifest: Manifest) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(manifest, SCHEMA)
    broken = json.loads(json.dumps(manifest))
    spec = broken["spec"].get("rayClusterSpec", broken["spec"])
    spec["workerGroupSpecs"][0]["minReplica"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_kubernetes_knows_every_key_of_the_pods(spec: Manifest) -> None:
    for group in groups(spec):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}}
        check_kubernetes({**pod, "template": group["template"]})
    misspelt = json.loads(json.dumps(groups(spec)[0]["template"]))
    misspelt["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(kubernetes_validate.ValidationError):
        check_kubernetes({**pod, "template": misspelt})


@pytest.mark.parametrize("kinds", [JOB, CLUSTER], ids=["rayjob", "raycluster"])
def test_kubernetes_knows_every_key_of_the_rest(kinds: dict[str, Manifest]) -> None:
    own = [one for kind, one in kinds.items() if not kind.startswith("Ray")]
    assert own
    for manifest in own:
        check_kubernetes(manifest)


def test_the_two_clusters_are_one_but_for_the_job() -> None:
    job = json.loads(json.dumps(SPECS["rayjob"]))
    pod = job["headGroupSpec"]["template"]["spec"]
    pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "job"]
    mounts = pod["containers"][0]["volumeMounts"]
    pod["containers"][0]["volumeMounts"] = [one for one in mounts if one["name"] != "job"]
    assert job == SPECS["raycluster"]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_rays_autoscaler_reads_the_cluster_as_meant(
    spec: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = {"metadata": {"name": "pagelake", "namespace": "default"}, "spec": spec}
    with caplog.at_level(logging.WARNING):
        config = _derive_autoscaling_config_from_ray_cr(manifest)
    assert not caplog.records
    nodes = config["available_node_types"]
    assert nodes["headgroup"]["resources"]["CPU"] == 0
    assert (nodes["cpu"]["min_workers"], nodes["gpu"]["min_workers"]) == (1, 0)
    assert nodes["gpu"]["resources"]["GPU"] == 1
    assert "GPU" not in nodes["cpu"]["resources"]
    assert nodes["gpu"]["idle_timeout_s"] == 300
    for group in spec["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert group["resources"]["CPU"] == limits["cpu"]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_pods_ask_for_gpus_and_for_no_label_that_a_node_may_lack(spec: Manifest) -> None:
    for group in groups(spec):
        pod = group["template"]["spec"]
        assert not {"nodeSelector", "affinity"} & set(pod)
        asked = pod["containers"][0]["resources"]
        gpus = group.get("resources", {}).get("GPU")
        assert asked["requests"].get("nvidia.com/gpu") == gpus
        assert asked["limits"].get("nvidia.com/gpu") == gpus


def test_the_job_has_a_place_on_the_cluster() -> None:
    written = yaml.safe_load(JOB["ConfigMap"]["data"]["job.yaml"])
    asked = written["resources"]
    actor, task = asked["custom_per_actor"], asked["custom_per_task"]
    known = {key: value for key, value in asked.items() if key in Resources.model_fields}
    job = Job.model_validate({**written, "resources": known})
    cpu, gpu = (group["resources"] for group in SPECS["rayjob"]["workerGroupSpecs"])
    assert all(float(gpu[name]) >= amount for name, amount in actor.items())
    assert all(float(cpu[name]) >= amount for name, amount in task.items())
    assert not set(task) & set(gpu), "drawing stays off the nodes with GPUs"
    assert job.resources.gpus_per_actor <= float(gpu["GPU"])
    assert (job.resources.cpus_per_actor or 0) <= float(gpu["CPU"])
    assert job.resources.actors.max <= SPECS["rayjob"]["workerGroupSpecs"][1]["maxReplicas"]


def test_the_run_is_started_once_from_the_file_that_is_mounted() -> None:
    spec = JOB["RayJob"]["spec"]
    assert spec["backoffLimit"] == 0, "exit code 3 is no reason to read all again"
    mounts = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    folder = next(one["mountPath"] for one in mounts["volumeMounts"] if one["name"] == "job")
    (file,) = JOB["ConfigMap"]["data"]
    assert spec["entrypoint"] == f"pagelake run {folder}/{file}"


def test_the_way_to_the_log_of_a_job_is_told_by_the_names_that_the_manifest_has() -> None:
    """A driver writes to a file of the head: its job server shows it, and `kubectl logs` never."""
    spec, told = JOB["RayJob"]["spec"], (ROOT / "infra/README.md").read_text()
    assert spec["submissionMode"] == "HTTPMode", "no submitter's pod that would have the log"
    assert spec["ttlSecondsAfterFinished"] == 3600, "an hour, says the README"
    (container,) = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert f"-head-svc {ports['dashboard']}:8265 &" in told
    assert f"-c {container['name']} -- ray job logs $id" in told
    name = JOB["RayJob"]["metadata"]["name"]
    for field in ("rayClusterName", "jobId"):
        path = "{.status." + field + "}"
        assert f"kubectl get rayjob {name} -o jsonpath='{path}'" in told
    assert "kubectl logs -f" not in told


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_pods_drain_hold_no_secret_and_are_not_root(spec: Manifest) -> None:
    for group in groups(spec):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["terminationGracePeriodSeconds"] >= 45, "draining takes up to 30 s"
        assert pod["securityContext"]["runAsNonRoot"]
        assert container["envFrom"] == [{"secretRef": {"name": "pagelake-credentials"}}]
        assert not any(re.search("KEY|SECRET|TOKEN", env["name"]) for env in container["env"])
        models = next(env["value"] for env in container["env"] if env["name"] == "HF_HOME")
        assert {"name": "models", "mountPath": models} in container["volumeMounts"]
        assert {"name": "metrics", "containerPort": 8080} in container["ports"]
        assert group["rayStartParams"]["metrics-export-port"] == "8080"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_the_cluster_runs_the_version_of_ray_that_is_pinned(spec: Manifest) -> None:
    assert f"ray=={spec['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
