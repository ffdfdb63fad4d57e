"""Every file of settings in infra/ can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
FILES = [path for path in sorted(INFRA.rglob("*")) if path.suffix in (".yml", ".yaml", ".json")]


class Strict(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        own = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(own) == len(set(own)), node.start_mark
        return super().construct_mapping(node, deep)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_can_be_read(path: Path) -> None:
    if path.suffix == ".json":
        assert json.loads(path.read_text())
    else:
        assert list(yaml.load_all(path.read_text(), Strict))


def test_the_readme_names_every_folder() -> None:
    told = (INFRA / "README.md").read_text()
    for folder in (path for path in INFRA.iterdir() if path.is_dir()):
        assert f"[{folder.name}/]({folder.name})" in told
