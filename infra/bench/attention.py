"""Do attention kernels agree on the features of pages, and on answers?

    python infra/bench/attention.py [--shape idefics2-8b] [--device cuda] [--samples 16]

Random weights of the given shape, in bfloat16 on a GPU, read made pages of several sizes with each
kernel that the machine has; sdpa is the one to agree with. Prints one JSON object: the largest
difference between features as a share of their largest value, and the share of answers that begin
with the same eight tokens. With random weights many tokens are nearly as likely as the best, so
answers part sooner than a trained model's; float32 (`--shape tiny --device cpu`) must agree in all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.bench.random_weights import write_random_checkpoint
from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.records import Image

_TOKENS = 8
_PROMPT = "User:{}Read the page.<end_of_utterance>\nAssistant:"


def main() -> None:
    """Load the model once a kernel, one after another, and compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--shape", default="idefics2-8b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--samples", type=int, default=16)
    asked = parser.parse_args()
    inputs = _inputs(asked.samples)
    with tempfile.TemporaryDirectory() as folder:
        write_random_checkpoint(Path(folder), asked.shape, splitting=False, device=asked.device)
        features, answers = _read(folder, asked.device, "sdpa", inputs)
        report: dict[str, Any] = {"shape": asked.shape, "device": asked.device}
        for kernel in ("eager", "flash_attention_2"):
            try:
                found, said = _read(folder, asked.device, kernel, inputs)
            except CheckpointError as error:
                report[kernel] = str(error)
                continue
            pairs = list(zip(features, found, strict=True))
            report[kernel] = {
                "features_off_by": max(
                    float((one - other).abs().max() / one.abs().max()) for one, other in pairs
                ),
                "same_answers": sum(map(tuple.__eq__, answers, said)) / len(answers),
            }
    print(json.dumps(report))


def _inputs(samples: int) -> list[ModelInput]:
    rng = np.random.default_rng(0)

    def page() -> Image:
        height, width = 14 * rng.integers(28, 70, 2)
        return rng.integers(0, 256, (height, width, 3), np.uint8)

    counts = [1 + number % 3 for number in range(samples)]
    return [
        ModelInput(_PROMPT.format("<image>" * count), [(page(),) for _ in range(count)])
        for count in counts
    ]


@torch.inference_mode()
def _read(
    folder: str, device: str, kernel: str, inputs: Sequence[ModelInput]
) -> tuple[list[torch.Tensor], list[tuple[int, ...]]]:
    settings = ModelSettings(name=folder, attention=kernel)
    checkpoint = resolve(settings)
    model: Any = family_of(checkpoint).load(checkpoint, settings, Placement(device))
    tiles: list[Image] = [tile for one in inputs for page in one.tiles for tile in page]
    features = [feature.float().cpu() for feature in model.features(tiles)]
    answers = [answer.token_ids for answer in model.generate(inputs, _TOKENS)]
    return features, answers


if __name__ == "__main__":
    main()
