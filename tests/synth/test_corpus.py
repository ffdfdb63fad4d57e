import json
from io import BytesIO
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from PIL import Image

from pipeline.synth.corpus import corpus_files, write_corpus
from pipeline.synth.document import make_document
from pipeline.synth.files import LabelledFile
from pipeline.synth.words import Split

SCHEMA = Path(__file__).parents[2] / "schemas" / "receipt.v1.json"


@pytest.fixture(scope="module")
def files() -> list[LabelledFile]:
    return list(corpus_files(seed=25, count=12, split=Split.VALIDATION))


def test_all_kinds_of_files_and_scales_are_mixed(files: list[LabelledFile]) -> None:
    suffixes = {Path(file.uri).suffix for file in files}
    assert suffixes == {".pdf", ".png", ".jpg", ".webp", ".tiff"}
    assert {file.kind for file in files} == {"image", "pdf", "scan"}
    images = [file.content for file in files if not file.uri.endswith(".pdf")]
    scales = {Image.open(BytesIO(content)).size[0] // 168 for content in images}
    assert scales == {1, 2, 3, 4}


def test_a_file_does_not_depend_on_how_many_follow(files: list[LabelledFile]) -> None:
    assert list(corpus_files(seed=25, count=6, split=Split.VALIDATION)) == files[:6]
    assert len({file.uri for file in files}) == len({file.record for file in files}) == len(files)


def test_the_truth_is_written_beside_the_documents(
    files: list[LabelledFile], tmp_path: Path
) -> None:
    validator = Draft202012Validator(
        json.loads(SCHEMA.read_text(encoding="utf-8")), format_checker=FormatChecker()
    )
    assert write_corpus(tmp_path, seed=25, count=6, split=Split.VALIDATION) == 6
    lines = (tmp_path / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    for file, line in zip(files, lines, strict=False):
        truth = json.loads(line)
        assert (truth["uri"], truth["n_pages"]) == (file.uri, 1)
        validator.validate(truth["record"])
        assert (tmp_path / file.uri).read_bytes() == file.content
    record = make_document("corpus 25/0", Split.VALIDATION).receipt.to_json()
    assert f'"record":{record}' in lines[0]
