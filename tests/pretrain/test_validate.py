from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.pretrain.collate import Collator
from pipeline.pretrain.examples import Geometry, answer_example
from pipeline.pretrain.validate import validate
from pipeline.synth.words import Split


class Parrot:
    """Writes what it is told, page after page, in place of a model."""

    training = True
    device = torch.device("cpu")

    def __init__(self, collator: Collator, answers: list[str]) -> None:
        self._tokenizer = collator._tokenizer
        self._answers = iter(answers)

    def eval(self) -> None:
        self.training = False

    def train(self, mode: bool) -> None:
        self.training = mode

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        texts = [next(self._answers) for _ in input_ids]
        rows = [self._tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        longest = max(map(len, rows))
        pad, end = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        written = [[*row, end, *[pad] * (longest - len(row))] for row in rows]
        return torch.cat([input_ids, torch.tensor(written)], dim=1)


def truths(geometry: Geometry, count: int, ocr: float) -> list[str]:
    examples = [answer_example(i, geometry, ocr, Split.VALIDATION) for i in range(count)]
    return [example.answer.text for example in examples if example.answer is not None]


def test_a_perfect_reader_is_right_in_all(collator: Collator, geometry: Geometry) -> None:
    told = [*truths(geometry, 5, 0.0), *truths(geometry, 5, 1.0)[::4]]
    found = validate(Parrot(collator, told), collator, geometry, 5)
    errors = {name for name in found if name.endswith("CER")}
    assert {found[name] for name in errors} == {0.0}
    assert {value for name, value in found.items() if name not in errors} == {1.0}


@pytest.mark.parametrize(
    "nonsense",
    ['{"total":NaN}', '{"total":1e9999999999999999999}', "[" * 9000, "", "[]", '"x"', "<image>{}"],
)
def test_nonsense_is_wrong_and_ends_nothing(
    collator: Collator, geometry: Geometry, nonsense: str
) -> None:
    parrot = Parrot(collator, [nonsense] * 4)
    found = validate(parrot, collator, geometry, 3)
    assert found["record"] == found["total"] == found["items F1"] == 0.0
    assert found["text CER"] == 1.0
    assert parrot.training
