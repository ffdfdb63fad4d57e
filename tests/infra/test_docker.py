"""The images, as far as they can be held to rules without a builder: read by a real parser."""

from __future__ import annotations

import fnmatch
import io
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "infra/docker").glob("Dockerfile*"))

Steps = list[dict[str, Any]]


def read(path: Path) -> Steps:
    found: Steps = DockerfileParser(fileobj=io.BytesIO(path.read_bytes())).structure
    return [step for step in found if step["instruction"] != "COMMENT"]


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def steps(request: pytest.FixtureRequest) -> Steps:
    """The instructions of an image, in order."""
    return read(request.param)


def last_stage(steps: Steps) -> Steps:
    starts = [at for at, step in enumerate(steps) if step["instruction"] == "FROM"]
    return steps[starts[-1] :]


def values(steps: Steps, instruction: str) -> list[str]:
    return [step["value"] for step in steps if step["instruction"] == instruction]


def test_there_is_an_image_for_cpus_and_one_for_gpus() -> None:
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.cuda"]


def test_an_image_begins_with_a_version_and_ends_without_root(steps: Steps) -> None:
    for base in values(steps, "FROM"):
        assert re.match(r"\S+:(?!latest)\S*\d+\.\d+\S*", base), base
    last = last_stage(steps)
    user = max(at for at, step in enumerate(last) if step["instruction"] == "USER")
    assert last[user]["value"] not in ("0", "root")
    assert not any(step["instruction"] == "RUN" for step in last[user:])


def test_both_images_hold_the_same_python() -> None:
    bases = {tuple(values(read(path), "FROM")) for path in DOCKERFILES}
    assert len(bases) == 1, "Ray wants one minor version of Python on all nodes"


def test_what_an_image_copies_is_in_the_tree_and_is_not_ignored(steps: Steps) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copies = [copy.split() for copy in values(steps, "COPY") if not copy.startswith("--from")]
    sources = {source for *some, _ in copies for source in some}
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in kept, f"{source} is not in the build's context"
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    needed = {*wheel["wheel"]["packages"], *wheel["wheel"]["force-include"], "LICENSE", "README.md"}
    assert needed <= sources, "the wheel is built from these"
    hidden = [line for line in ignored if line and line[0] not in "!#*"]
    assert not any(fnmatch.fnmatch(source, line) for source in sources for line in hidden)


def test_what_is_installed_is_pinned_and_leaves_nothing_behind(steps: Steps) -> None:
    installs = [one for run in values(steps, "RUN") for one in run.split("&&")]
    pips = [one for one in installs if "pip install" in one]
    assert pips
    assert all("--constraint constraints.txt" in pip for pip in pips)
    apt = [run for run in values(steps, "RUN") if "apt-get install" in run]
    assert apt
    assert all(
        "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists" in run for run in apt
    )
    assert any("poppler-utils" in run for run in values(last_stage(steps), "RUN"))


def test_torch_is_the_version_that_the_makefile_pins(steps: Steps) -> None:
    pinned = re.search(r"^TORCH \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f'TORCH="{pinned[1]}"' in values(steps, "ARG")


def test_an_image_can_be_a_node_of_kuberay(steps: Steps) -> None:
    packages = " ".join(values(last_stage(steps), "RUN"))
    assert {"bash", "wget"} <= set(packages.split()), "its probes run them"
    assert any(env.startswith("PATH=/opt/pagelake/bin:") for env in values(steps, "ENV"))
    assert any("ray[data,default]" in run for run in values(steps, "RUN"))
    assert values(steps, "ENTRYPOINT") == ['["tini", "--", "pagelake"]']
