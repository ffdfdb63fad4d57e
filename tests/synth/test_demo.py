"""The generator's files, and the committed set in jobs/demo, which must be what it writes."""

import json
import os
import subprocess
import sys
from decimal import Decimal
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from pipeline.synth.demo import demo_files
from pipeline.synth.document import make_document
from pipeline.synth.files import Kind, LabelledFile
from pipeline.synth.words import Split

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "jobs" / "demo"


@pytest.fixture(scope="module")
def files() -> list[LabelledFile]:
    return list(demo_files(seed=0))


@pytest.fixture(scope="module")
def truth() -> list[dict[str, Any]]:
    lines = (DEMO / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line, parse_float=Decimal) for line in lines]


def pixels(name: str, content: bytes) -> list[NDArray[np.uint8]]:
    if name.endswith(".pdf"):
        with pdfium.PdfDocument(content) as pdf:
            return [page.render(scale=1).to_numpy().copy() for page in pdf]
    with Image.open(BytesIO(content)) as image:
        return [np.array(frame.convert("L")) for frame in ImageSequence.Iterator(image)]


def test_another_process_writes_the_same_bytes(files: list[LabelledFile], tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pipeline.synth", str(tmp_path), "--seed", "0"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
    )
    assert {path.name for path in tmp_path.iterdir()} == {"documents", "truth.jsonl"}
    assert len(list((tmp_path / "documents").iterdir())) == len(files)
    for file in files:
        assert (tmp_path / file.uri).read_bytes() == file.content, file.uri


def test_another_seed_gives_another_set(files: list[LabelledFile]) -> None:
    others = list(islice(demo_files(seed=1), 5))
    assert [other.uri for other in others] == [file.uri for file in files[:5]]
    assert not {other.record for other in others} & {file.record for file in files}


def test_the_committed_set_is_what_the_generator_writes(files: list[LabelledFile]) -> None:
    committed = sorted(f"documents/{path.name}" for path in (DEMO / "documents").iterdir())
    assert committed == sorted(file.uri for file in files)
    lines = (DEMO / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines == [file.truth_line for file in files]
    for file in files:
        old = pixels(file.uri, (DEMO / file.uri).read_bytes())
        new = pixels(file.uri, file.content)
        assert len(old) == len(new) == file.n_pages, file.uri
        for before, after in zip(old, new, strict=True):
            # Builds of Pillow carry different FreeType and JPEG libraries: nearly the same is same.
            difference = np.abs(before.astype(int) - after)
            assert difference.mean() < 1, file.uri


def test_truth_covers_every_file_and_validates(truth: list[dict[str, Any]]) -> None:
    schema = json.loads((ROOT / "schemas" / "receipt.v1.json").read_text(encoding="utf-8"))
    validator = Draft202012Validator(schema, format_checker=FormatChecker())
    assert {line["uri"] for line in truth} == {
        f"documents/{path.name}" for path in (DEMO / "documents").iterdir()
    }
    assert {line["kind"] for line in truth} == set(Kind)
    for line in truth:
        validator.validate(line["record"])


def test_the_set_is_large_enough_and_light() -> None:
    sizes = [path.stat().st_size for path in DEMO.rglob("*") if path.is_file()]
    assert len(sizes) > 24
    assert sum(sizes) < 1_500_000


def test_receipts_and_invoices_are_mixed() -> None:
    texts = [
        make_document(f"0/{index}", Split.TEST).pages[0].layout.text.upper() for index in range(27)
    ]
    assert 4 <= sum("INVOICE" in text for text in texts) <= 14


def test_images_are_at_the_models_own_scale(files: list[LabelledFile]) -> None:
    images = [file for file in files if file.kind is Kind.IMAGE]
    assert {Path(file.uri).suffix for file in images} == {".png", ".jpg", ".webp", ".tiff"}
    for file in images:
        with Image.open(BytesIO(file.content)) as image:
            assert image.size == (168, 224)


def test_the_job_file_names_the_set_and_its_schema() -> None:
    job = yaml.safe_load((ROOT / "jobs" / "demo.yaml").read_text(encoding="utf-8"))
    assert job["schema"] == "receipt.v1"
    assert [(ROOT / "jobs" / path).is_dir() for path in job["input"]["paths"]] == [True]
