"""Idefics3 and SmolVLM against the stock processor and `generate`, on small random weights."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from rich.console import Console
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from pipeline.engine.engine import Engine, Limits
from pipeline.engine.request import Request
from pipeline.errors import CheckpointError
from pipeline.job import Job
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.idefics3 import Idefics3Encoder, Idefics3Family, model_class
from pipeline.models.token_by_token import TokenByToken
from pipeline.prompting import conversation, parsed
from pipeline.records import Image
from pipeline.runners.run import Options, run

LONG = 24
FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"
SIZES = [(595.276, 841.89), (842, 595), (300, 300), (80, 700), (613, 791)]


@cache
def load(folder: Path) -> Any:
    settings = ModelSettings(name=str(folder))
    return model_class()(resolve(settings), settings, Placement(threads=1))


@cache
def encoder_of(folder: Path, **settings: Any) -> Idefics3Encoder:
    asked = ModelSettings(name=str(folder), **settings)
    return Idefics3Family().encoder(resolve(asked), asked)


@cache
def prompt(folder: Path, n_pages: int = 1, style: Any = "auto", text: str = "Read this.") -> str:
    settings = ModelSettings(name=str(folder), chat_template=style)
    shown = conversation(parsed(text), n_pages)
    return family_of(resolve(settings)).prompt(resolve(settings), settings, shown, "")


def pages(folder: Path, draw_page: Any) -> list[Image]:
    encoder = encoder_of(folder)
    plans = [encoder.plan_page(*size, True) for size in SIZES]
    plans.append(encoder.plan_page(40, 30, False))
    return [draw_page(plan, 1 + 2 * (i % 2)) for i, plan in enumerate(plans)]


def picture(image: Image) -> PIL.Image.Image:
    return PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def stock_inputs(folder: Path, prompts: list[str], images: list[list[Image]]) -> Any:
    pictures = [[picture(image) for image in sample] for sample in images]
    return load(folder).processor(images=pictures, text=prompts, padding=True, return_tensors="pt")


def samples(folder: Path, draw_page: Any) -> tuple[list[ModelInput], list[list[Image]]]:
    """Prompts of one and of several pages."""
    six, encoder = pages(folder, draw_page), encoder_of(folder)
    shown = [six[:1], six[1:3], six[3:]]
    inputs = [
        ModelInput(prompt(folder, len(images)), [encoder.encode(image) for image in images])
        for images in shown
    ]
    return inputs, shown


def test_prompts_are_the_stock_ones(folder: Path, draw_page: Any) -> None:
    model, (inputs, shown) = load(folder), samples(folder, draw_page)
    stock = stock_inputs(folder, [one.prompt for one in inputs], shown)
    for i, one in enumerate(inputs):
        ids = TokenByToken(model).tokenize(one.prompt, one.tiles, 0).ids
        kept = stock["input_ids"][i][stock["attention_mask"][i].bool()]
        assert list(ids) == kept.tolist()
        assert (ids[0], ids.count(1)) == (1, 1)
    stock_text = get_image_prompt_string(3, 3, 4, FAKE, "<image>", GLOBAL)
    square = encoder_of(folder).square
    shapes = [(3 * square, 3 * square, 1), (square, square, 1)]
    assert model.widened("a<image>b<image>c", [shapes, shapes]).split(stock_text) == [*"abc"]


def test_features_are_the_stock_ones_of_padded_batches(folder: Path, draw_page: Any) -> None:
    model, (inputs, shown) = load(folder), samples(folder, draw_page)
    stock = stock_inputs(folder, [one.prompt for one in inputs], shown)
    with torch.inference_mode():
        expected = torch.cat(
            model.weights.get_image_features(
                pixel_values=stock["pixel_values"],
                pixel_attention_mask=stock["pixel_attention_mask"],
            ).pooler_output
        )
        tiles = [tile for one in inputs for page in one.tiles for tile in page]
        together = model.features(tiles)
        alone = [model.features([tile])[0] for tile in tiles]
    assert expected.std() > 0.1
    torch.testing.assert_close(torch.cat(together), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_answers_are_the_stock_ones_in_static_batches_and_token_by_token(
    folder: Path, draw_page: Any
) -> None:
    model, (inputs, shown) = load(folder), samples(folder, draw_page)
    stock = stock_inputs(folder, [one.prompt for one in inputs], shown)
    sequences = model.weights.generate(
        **stock,
        do_sample=False,
        max_new_tokens=LONG,
        eos_token_id=list(model.vocabulary.stop_ids),
        pad_token_id=0,
        bad_words_ids=[[i] for i in model.never],
    )
    answers = sequences[:, stock["input_ids"].shape[1] :]
    expected = model.processor.batch_decode(answers, skip_special_tokens=True)
    static = model.generate(inputs, LONG)
    assert [one.text for one in static] == expected
    assert len(set(expected)) == len(expected)
    running = family_of(resolve(ModelSettings(name=str(folder)))).load(
        resolve(ModelSettings(name=str(folder))), ModelSettings(), Placement(threads=1)
    )
    assert isinstance(running, TokenByToken)
    with Engine(running, Limits(3)) as engine:
        futures = [engine.submit(Request(one.prompt, one.tiles, LONG)) for one in inputs]
        found = [future.result(timeout=60) for future in futures]
    assert [one.token_ids for one in found] == [one.token_ids for one in static]
    for ours, theirs in zip(found, static, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


def test_no_answer_holds_a_token_of_images(folder: Path) -> None:
    model = load(folder)
    vocabulary = model.processor.tokenizer.get_vocab()
    named = {
        vocabulary[name]
        for name in (FAKE, "<image>", GLOBAL, "<row_1_col_3>")
        if name in vocabulary
    }
    assert named <= set(model.never)


def test_a_job_ends_in_tables_that_fit_the_schema(
    folder: Path, tmp_path: Path, demo: Path, rows: Callable[[Path | str, str], Any]
) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["receipt", "invoice"]}, "paid": {"type": "boolean"}},
        "required": ["kind", "paid"],
        "additionalProperties": False,
    }
    (tmp_path / "kind.json").write_text(json.dumps(schema))
    job = Job.model_validate(
        {
            "input": {"paths": [str(demo / "documents" / "pdf-01.pdf")]},
            "schema": str(tmp_path / "kind.json"),
            "model": {"name": str(folder)},
            "output": {"uri": str(tmp_path / "out")},
        }
    )
    assert run(job, Options(runner="local"), Console(file=io.StringIO())).all_ok
    (row,) = rows(tmp_path / "out", "documents")
    assert row["record"]["kind"] in ("receipt", "invoice")
    (page,) = rows(tmp_path / "out", "pages")
    assert page["prompt_tokens"] > 4 * 7  # a grid of six squares at least, and the whole page


def test_settings_are_kept_or_refused_in_one_line(folder: Path) -> None:
    square = encoder_of(folder).square
    assert encoder_of(folder).splitting
    assert encoder_of(folder, image_splitting="adaptive").splitting
    assert not encoder_of(folder, image_splitting=False).splitting
    assert encoder_of(folder, longest_edge=2 * square).longest_edge == 2 * square
    for wrong in ({"shortest_edge": 42}, {"longest_edge": 100}, {"longest_edge": 100 * square}):
        with pytest.raises(CheckpointError, match=rf"^model\.{next(iter(wrong))}: [^\n]*$"):
            encoder_of(folder, **wrong)


def test_the_family_has_a_chat_template_of_its_own(folder: Path, kind: str) -> None:
    begun = "" if kind == "idefics3" else "<s>"
    expected = f"{begun}User: Read this.<image><image><end_of_utterance>\nAssistant:"
    assert prompt(folder, 2, "default") == expected
    assert prompt(folder, 1, "default", "{page}Go") == expected.replace(
        " Read this.<image><image>", "<image>Go"
    )


def test_tokens_that_do_not_fit_the_model_are_one_line(folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(folder, tmp_path / "broken"))
    file = broken / "processor_config.json"
    file.write_text(file.read_text().replace('"image_seq_len": 4', '"image_seq_len": 5'))
    with pytest.raises(CheckpointError, match="image_seq_len 5 in its processor and 4 tokens"):
        load(broken)
