"""Prove that two workers of Ray Train learn what one does with batches twice as large.

    make proof-workers

Trains a reader too small to read on the demo's images, once in this process and once on two
workers, and compares the losses step by step and the weights at the end; then has a worker fail,
and looks whether its own words arrive. About a minute on two cores.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch

from pipeline.errors import InputError
from pipeline.pretrain.job import Architecture, Tower
from pipeline.pretrain.scratch import build_model, build_processor, save_reader
from pipeline.training import train

STEPS = 4
DEMO = Path(__file__).parents[2] / "jobs" / "demo"
SHAPE = Architecture(
    vision=Tower(width=32, layers=1, heads=2, feed_forward=64),
    resampler_heads=2,
    text=Tower(width=32, layers=2, heads=2, feed_forward=64),
)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_reader(folder / "reader", build_model(SHAPE, 0), build_processor(SHAPE), SHAPE)
        job = write_job(folder)
        for output, settings in (("one", ["batch=4"]), ("two", ["batch=2", "workers=2"])):
            if not train(str(job), settings, str(folder / output)):
                raise SystemExit(f"{output}: the training did not finish")
        compare(folder / "one", folder / "two")
        try:
            train(str(job), ["workers=2", f"data.train={folder}/none.jsonl"], str(folder / "none"))
        except InputError as error:
            print(f"a worker's words arrive: {error}")
        else:
            raise SystemExit("a training without data did not fail")


def write_job(folder: Path) -> Path:
    lines = (DEMO / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if '"kind":"image"' in line][:8]
    for row in rows:
        row["uri"] = str(DEMO / row["uri"])
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    job: dict[str, Any] = {
        "schema": "receipt.v1",
        "model": {"name": str(folder / "reader")},
        "data": {"train": "rows.jsonl", "eval_share": 0},
        "method": "full",
        "steps": STEPS,
        "output": str(folder / "unused"),
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job), encoding="utf-8")  # JSON is YAML
    return path


def compare(one: Path, two: Path) -> None:
    curves = [
        [json.loads(line) for line in (output / "curve.jsonl").read_text().splitlines()]
        for output in (one, two)
    ]
    for alone, together in zip(*curves, strict=True):
        print(f"step {alone['step']}: loss {alone['loss']} alone, {together['loss']} together")
        if abs(alone["loss"] - together["loss"]) > 1e-3 * alone["loss"]:
            raise SystemExit("the losses differ")
    weights = [
        safetensors.torch.load_file(output / "model" / "model.safetensors") for output in (one, two)
    ]
    furthest = max(float((weights[1][k] - v).abs().max()) for k, v in weights[0].items())
    print(f"no weight differs by more than {furthest:.1e}")
    if furthest > 1e-3:
        raise SystemExit("the weights differ")
    if list(two.glob("ray-*")):
        raise SystemExit("Ray's papers were left behind")


if __name__ == "__main__":
    main()
