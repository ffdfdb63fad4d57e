"""Dashboard, alerts and scrapes ask for what a real run tells: a run is watched to see."""

from __future__ import annotations

import io
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import PIL.Image
import promql_parser
import pytest
import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES
from rich.console import Console

from pipeline.job import Job
from pipeline.runners.metrics import NAMES
from pipeline.runners.run import Options, run

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/monitoring"
DASHBOARD = json.loads((FOLDER / "grafana-dashboard.json").read_text())
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())
SCHEMA = json.loads((FOLDER / "schema/prometheus.json").read_text())

STAGES = ("rasterize", "generate", "write")

Samples = list[tuple[str, dict[str, str], float]]


def expressions() -> dict[str, str]:
    """Every PromQL expression by where it stands, Grafana's variables filled in."""
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "5m")
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    }
    alerts = {rule["alert"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}
    return {**panels, **alerts}


def selectors(node: Any) -> Iterator[Any]:
    """Every selector of series in a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "args"):
        below = getattr(node, name, None)
        for one in below if isinstance(below, list) else [below]:
            if one is not None:
                yield from selectors(one)


ASKED = {place: list(selectors(promql_parser.parse(text))) for place, text in expressions().items()}


def scrape() -> Samples:
    """What Prometheus would read from this machine's node now."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as reply:
        text = reply.read().decode()
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> Samples:
    """What a run of four pages tells, of which one ends the model's process."""
    folder = tmp_path_factory.mktemp("watched")
    for number, color in enumerate(("white", "blue", "red", "black")):
        PIL.Image.new("RGB", (40, 30), color).save(folder / f"{number}.png")
    job = Job.model_validate(
        {
            "name": "watched",
            "input": {"paths": [str(folder / "*.png")]},
            "schema": "receipt.v1",
            "model": {"family": "fake", "name": "fake?edge=64&dies_on=ff0000"},
            "limits": {"attempts": 1},
            "output": {"uri": str(folder / "out")},
        }
    )
    summary = run(job, Options(), Console(file=io.StringIO()))
    assert summary.failures["model_crash"] == 1
    until = time.monotonic() + 30  # Ray passes metrics on now and then
    samples = scrape()
    while not complete(samples) and time.monotonic() < until:
        time.sleep(0.5)
        samples = scrape()
    return samples


def complete(samples: Samples) -> bool:
    """Whether driver and actor have told their last."""
    pages = [total(samples, "ray_pagelake_stage_pages_total", stage=stage) for stage in STAGES]
    return {*pages} == {4} and total(samples, "ray_pagelake_pages_left") == 0


def total(samples: Samples, name: str, **labels: str) -> float:
    wanted = {"job_name": "watched", **labels}.items()
    return sum(value for found, has, value in samples if found == name and wanted <= has.items())


def test_a_run_tells_all_its_metrics(watched: Samples) -> None:
    own = {name for name, labels, _ in watched if labels.get("job_name") == "watched"}
    assert own == {f"ray_{name}" for name in NAMES}


def test_what_a_run_tells_adds_up(watched: Samples) -> None:
    assert total(watched, "ray_pagelake_pages_finished_total") == 4
    assert total(watched, "ray_pagelake_documents_finished_total") == 4
    for stage in STAGES:
        assert total(watched, "ray_pagelake_stage_pages_total", stage=stage) == 4
    assert total(watched, "ray_pagelake_failures_total", kind="model_crash") == 1
    assert total(watched, "ray_pagelake_model_restarts_total") >= 1
    assert total(watched, "ray_pagelake_prompt_tokens_total") > 0
    assert total(watched, "ray_pagelake_output_tokens_total") > 0
    spent = total(watched, "ray_pagelake_stage_seconds_total", stage="generate")
    assert total(watched, "ray_pagelake_model_seconds_total") == pytest.approx(spent)
    for name in ("pages_left", "pages_planned", "eta_seconds", "queue_depth"):
        assert total(watched, f"ray_pagelake_{name}") == 0, "the run is over"


@pytest.mark.parametrize("place", ASKED)
def test_what_is_asked_for_is_told(place: str, watched: Samples) -> None:
    told: dict[str, set[str]] = {}
    for name, labels, _ in watched:
        told.setdefault(name, set()).update(labels)
    # Of GPUs a machine without one tells nothing; Ray's own list says what it would.
    for name, gauge in METRICS_GAUGES.items():
        told.setdefault(f"ray_{name}", set()).update(gauge.view.columns)
    assert ASKED[place]
    for selector in ASKED[place]:
        assert selector.name in told
        labels = {matcher.name for matcher in selector.matchers.matchers}
        assert labels <= told[selector.name], selector.name
    grouped = re.findall(r"(?:by|on) \(([\w, ]+)\)", expressions()[place])
    known = set[str]().union(*(told[selector.name] for selector in ASKED[place]))
    assert {label for labels in grouped for label in labels.split(", ")} <= known


def test_every_metric_is_explained() -> None:
    told = (ROOT / "docs/MONITORING.md").read_text()
    for name in NAMES:
        assert re.search(rf"^\| `{name}`", told, re.MULTILINE), name
    for group in RULES["groups"]:
        for rule in group["rules"]:
            assert f"`{rule['alert']}`" in told


def test_prometheus_knows_every_key() -> None:
    for file, kind in (("prometheus.yml", "config"), ("alerts.yml", "rules")):
        written = yaml.safe_load((FOLDER / file).read_text())
        schema = {**SCHEMA, "$ref": f"#/$defs/{kind}"}
        jsonschema.validate(written, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**written, "scrapes": []}, schema)
    rules = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["rule_files"]
    assert all((FOLDER / name).exists() for name in rules)


def test_the_pod_monitor_finds_the_pods() -> None:
    monitor = yaml.safe_load((FOLDER / "podmonitor.yaml").read_text())
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    labels = dict(monitor["spec"]["selector"]["matchLabels"])
    assert labels.pop("ray.io/is-ray-node") == "yes", "KubeRay's own label"
    *_, cluster = yaml.safe_load_all((ROOT / "infra/kuberay/raycluster.yaml").read_text())
    for group in [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]:
        assert labels.items() <= group["template"]["metadata"]["labels"].items()
        (container,) = group["template"]["spec"]["containers"]
        assert endpoint["port"] in {port["name"] for port in container["ports"]}


def test_the_dashboard_can_be_imported() -> None:
    assert (DASHBOARD["uid"], DASHBOARD["schemaVersion"]) == ("pagelake", 39)
    variables = {one["name"]: one["type"] for one in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query"}
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another panel"
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        used = set(re.findall(r"\$(\w+)", json.dumps(panel["targets"]).replace("${", "$")))
        assert used <= {*variables, "__rate_interval"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
