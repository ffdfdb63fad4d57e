import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pypdfium2 as pdfium
from PIL import Image

from pipeline.finetune.data import read_rows
from pipeline.synth.tickets import ticket_files
from pipeline.synth.words import Split

ROOT = Path(__file__).parents[2]


def test_the_command_writes_two_sets_that_share_no_value(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pipeline.synth.tickets", str(tmp_path), "--train=6", "--test=4"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
    )
    values: list[set[str]] = []
    for split, count in ((Split.TRAIN, 6), (Split.TEST, 4)):
        lines = (tmp_path / split / "truth.jsonl").read_text(encoding="utf-8").splitlines()
        files = list(ticket_files(0, count, split))
        assert [file.truth_line for file in files] == lines
        for file in files:
            assert (tmp_path / split / file.uri).read_bytes() == file.content
        records = [json.loads(line)["record"] for line in lines]
        values.append({str(v) for each in records for k, v in each.items() if k != "fare"})
    assert not values[0] & values[1]
    rows = read_rows(str(tmp_path / "train" / "truth.jsonl"))
    assert [Path(row.uri).parent for row in rows] == [tmp_path / "train" / "documents"] * 6
    assert {str(row.exchanges[0].answer["price"])[-3] for row in rows} == {"."}  # cents kept


def test_images_and_pdfs_are_of_the_readers_own_scale() -> None:
    for file in ticket_files(1, 4, Split.TRAIN):
        if file.uri.endswith(".pdf"):
            with pdfium.PdfDocument(file.content) as pdf:
                assert pdf[0].get_size() == (168, 224)
        else:
            assert Image.open(BytesIO(file.content)).size == (168, 224)
