"""How well `nano` reads, on documents made fresh whose names and values it never saw.

    python infra/bench/reading.py [--documents 500] [--pairs 200] [--seed 1] [--model nano]
        [--runner ray]

1. The whole pipeline (files, a run, its evaluation) beside the training's own loader on
   the same documents: if rendering or encoding differed from training, these would part.
2. Pairs of documents that differ in one printed character: does the answer follow?
3. Whose values are the answers: the shown document's, or those of the one shown before it?
4. The page's text, task `ocr`.
5. CPU seconds of one receipt at batch 1, and the size of the model's folder.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.grammar import Grammar
from pipeline.engine.request import Request
from pipeline.evaluation.compare import score_record
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.metrics import edits
from pipeline.evaluation.scores import Scores
from pipeline.evaluation.shape import record_shape
from pipeline.job import Job
from pipeline.lake.exact_json import loads
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Placement
from pipeline.models.checkpoint_files import settings_folder
from pipeline.models.families import family_of, resolve
from pipeline.pretrain.examples import RECEIPT_SCHEMA, TEXT_SCHEMA, Geometry, Shot, page_example
from pipeline.prompting import conversation, parsed
from pipeline.records import Image
from pipeline.runners.run import Options, run
from pipeline.schema import load_schema
from pipeline.synth.altered import altered
from pipeline.synth.corpus import CorpusDocument, corpus_documents, write_corpus
from pipeline.synth.document import SynthPage, make_document
from pipeline.synth.draw import Look
from pipeline.synth.files import look_in_file
from pipeline.synth.words import Split

RunnerName = Literal["ray", "local"]

GEOMETRY, LAID_OUT = Geometry((12, 16), 14), Shot()
SCHEMA = load_schema(RECEIPT_SCHEMA)
SHAPE = record_shape(SCHEMA.document)
WANTED = {
    "date": 0.97,
    "total": 0.97,
    "currency": 0.97,
    "items[].qty": 0.97,
    "items[].price": 0.97,
    "merchant": 0.85,
    "items[].name": None,
    "items F1": 0.90,
    "document": 0.60,
}
FOLLOWED = {"digits": 0.95, "letters": 0.85}
AGREEMENT = 0.01 + 1e-9


class Reader:
    """The model by itself: tiles in, records out, under the same grammar as in a run."""

    def __init__(self, name: str) -> None:
        settings = ModelSettings(name=name)
        self.checkpoint = resolve(settings)
        self.family = family_of(self.checkpoint)
        self.model = self.family.load(self.checkpoint, settings, Placement(threads=1))

    def read(
        self, tiles: Sequence[Image], batch: int = 64, schema_id: str = RECEIPT_SCHEMA
    ) -> list[dict[str, Any] | None]:
        shown = conversation(parsed("{page}"), 1)
        prompt = self.family.prompt(self.checkpoint, ModelSettings(), shown, schema_id)
        schema = load_schema(schema_id).document
        grammar = Grammar(schema, self.model.vocabulary, compact=True)
        with Engine(self.model, Limits(batch)) as engine:
            answers = [engine.submit(Request(prompt, ((t,),), 512, grammar)) for t in tiles]
        return [record_in(answer.result().text) for answer in answers]


def record_in(text: str) -> dict[str, Any] | None:
    try:
        return loads(text)
    except ValueError:
        return None


def tile_of(page: SynthPage, look: Look, shot: Shot = LAID_OUT) -> Image:
    return page_example(page, look, shot, GEOMETRY, RECEIPT_SCHEMA).tile


def tile_of_file(one: CorpusDocument) -> Image:
    """The page in its file's look, as training would draw it."""
    (page,) = one.document.pages
    look = look_in_file(page.look, one.kind, one.suffix)
    return tile_of(page, look, Shot.of_file(one.kind, one.scale))


def figures(scores: Scores) -> dict[str, float]:
    found = {path: field.accuracy or 0.0 for path, field in scores.fields.items()}
    return found | {"items F1": scores.lists["items"].f1 or 0.0, "document": scores.exact_rate or 0}


def through_the_pipeline(folder: Path, model: str, runner: RunnerName) -> dict[str, float]:
    output = str(folder / "out")
    job = Job.model_validate(
        {
            "input": {"paths": [str(folder / "documents")]},
            "schema": RECEIPT_SCHEMA,
            "model": {"name": model},
            "output": {"uri": output},
        }
    )
    run(job, Options(runner=runner), Console(stderr=True))
    return figures(evaluate(output, str(folder / "truth.jsonl")).scores)


def through_the_loader(reader: Reader, seed: int, count: int) -> dict[str, float]:
    tiles, truths = [], []
    for one in corpus_documents(seed, count, Split.TEST):
        tiles.append(tile_of_file(one))
        truths.append(json.loads(one.document.receipt.to_json(), parse_float=Decimal))
    scores = Scores()
    for truth, record in zip(truths, reader.read(tiles), strict=True):
        scores.add(score_record(SHAPE, truth, record), with_record=record is not None)
    return figures(scores)


def value_at(record: dict[str, Any] | None, field: str) -> str:
    value: Any = record
    for part in field.replace("date.", "date/").split("/")[0].split("."):
        try:
            value = value[int(part)] if part.isdigit() else value[part]
        except (KeyError, IndexError, TypeError):
            return ""
    return str(value)


def pairs(reader: Reader, seed: int, count: int) -> dict[str, tuple[int, int]]:
    """Return, for digits and letters, how many pairs were followed, and of how many."""
    followed = {"digits": [0, 0], "letters": [0, 0]}
    documents = [make_document(f"pair {seed}/{i}", Split.TEST) for i in range(count)]
    changed = [altered(d, random.Random(f"altered {seed}/{i}")) for i, d in enumerate(documents)]
    both = [*documents, *(after for after, _ in changed)]
    answers = reader.read([tile_of(d.pages[0], d.pages[0].look) for d in both])
    for i, (before, (after, field)) in enumerate(zip(documents, changed, strict=True)):
        field = "date" if field.startswith("date.") else field
        old, new = (
            value_at(json.loads(d.receipt.to_json(), parse_float=Decimal), field)
            for d in (before, after)
        )
        spot = next(k for k, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
        said = value_at(answers[i], field), value_at(answers[count + i], field)
        tally = followed["digits" if new[spot].isdigit() else "letters"]
        tally[0] += (said[0][spot : spot + 1], said[1][spot : spot + 1]) == (old[spot], new[spot])
        tally[1] += 1
    return {kind: (right, total) for kind, (right, total) in followed.items()}


def whose(reader: Reader, seed: int, count: int) -> tuple[float, float]:
    """Return how often merchant and total are the shown document's, and the one before's."""
    documents = [make_document(f"exchange {seed}/{i}", Split.TEST) for i in range(count)]
    answers = reader.read([tile_of(d.pages[0], d.pages[0].look) for d in documents])
    shown = other = 0
    for i, answer in enumerate(answers):
        for own, receipt in ((True, documents[i].receipt), (False, documents[i - 1].receipt)):
            told = answer or {}
            same = (told.get("merchant") == receipt.merchant) + (told.get("total") == receipt.total)
            shown, other = shown + own * same, other + (not own) * same
    return shown / (2 * count), other / (2 * count)


def text_error(reader: Reader, seed: int, count: int) -> float:
    """Return the character error rate of the pages' text, task `ocr`."""
    pages = [make_document(f"text {seed}/{i}", Split.TEST).pages[0] for i in range(count)]
    records = reader.read([tile_of(page, page.look) for page in pages], schema_id=TEXT_SCHEMA)
    wrong = sum(
        edits(page.layout.text, str((record or {}).get("text", "")))
        for page, record in zip(pages, records, strict=True)
    )
    return wrong / sum(len(page.layout.text) for page in pages)


def cpu_seconds(reader: Reader, seed: int) -> float:
    documents = [make_document(f"timed {seed}/{i}", Split.TEST) for i in range(9)]
    tiles = [tile_of(d.pages[0], d.pages[0].look) for d in documents]
    spent = []
    for tile in tiles:
        start = time.process_time()
        reader.read([tile], batch=1)
        spent.append(time.process_time() - start)
    return float(np.median(spent))


def measure(
    documents: int, pairs_wanted: int, seed: int, model: str, runner: RunnerName
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        write_corpus(Path(name), seed, documents, Split.TEST)
        pipeline = through_the_pipeline(Path(name), model, runner)
    reader = Reader(model)
    shown, other = whose(reader, seed, pairs_wanted // 2)
    size = sum(file.stat().st_size for file in settings_folder(reader.checkpoint).iterdir())
    return {
        "documents": documents,
        "pipeline": pipeline,
        "loader": through_the_loader(reader, seed, documents),
        "followed": pairs(reader, seed, pairs_wanted),
        "shown": shown,
        "other": other,
        "text_error": text_error(reader, seed, pairs_wanted // 2),
        "cpu_seconds": cpu_seconds(reader, seed),
        "megabytes": size / 1e6,
    }


def show(found: dict[str, Any]) -> None:
    console = Console()
    title = f"{found['documents']} documents"
    table = Table("field", "pipeline", "loader", "wanted", title=title)
    for path, wanted in WANTED.items():
        both = (f"{found[way][path]:.3f}" for way in ("pipeline", "loader"))
        table.add_row(path, *both, f"{wanted:.2f}" if wanted else "")
    console.print(table)
    for kind, (right, total) in found["followed"].items():
        share = right / max(1, total)
        console.print(f"{kind} changed and followed: {right} of {total} ({share:.3f})")
    console.print(
        f"merchant and total: {found['shown']:.3f} the shown document's, "
        f"{found['other']:.3f} another's"
    )
    console.print(f"task ocr: {found['text_error']:.3f} of the characters wrong")
    console.print(f"CPU seconds a receipt at batch 1: {found['cpu_seconds']:.2f}")
    console.print(f"folder: {found['megabytes']:.1f} MB")


def short_of(found: dict[str, Any]) -> list[str]:
    pipeline, loader = found["pipeline"], found["loader"]
    missed = [path for path, wanted in WANTED.items() if wanted and pipeline[path] < wanted]
    parted = [path for path in WANTED if abs(pipeline[path] - loader[path]) > AGREEMENT]
    shares = {kind: right / max(1, total) for kind, (right, total) in found["followed"].items()}
    followed = [f"{kind} followed" for kind, wanted in FOLLOWED.items() if shares[kind] < wanted]
    limits = ["CPU seconds"] * (found["cpu_seconds"] >= 1) + ["folder"] * (found["megabytes"] >= 20)
    return [*missed, *(f"agreement on {path}" for path in parted), *followed, *limits]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--runner", choices=("ray", "local"), default="ray")
    parser.add_argument("--json", action="store_true", help="one line of JSON, not a table")
    asked = parser.parse_args()
    found = measure(asked.documents, asked.pairs, asked.seed, asked.model, asked.runner)
    if asked.json:
        print(json.dumps(found))
    else:
        show(found)
    if missed := short_of(found):
        raise SystemExit("short of what is wanted: " + ", ".join(missed))


if __name__ == "__main__":
    main()
