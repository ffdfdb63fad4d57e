"""Answers against the stock processor and `generate`, on random weights of the stock classes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from pipeline.errors import CheckpointError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import ModelInput, ModelOutput, PageEncoder, Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.idefics2.model import Idefics2Model
from pipeline.prompting import conversation, parsed
from pipeline.records import FinishReason, Image

MakeCheckpoint = Callable[..., Path]
NEVER = ["<image>", "<fake_token_around_image>"]
LONG = 24


def load(folder: Path | str, **settings: Any) -> Idefics2Model:
    asked = ModelSettings(name=str(folder), **settings)
    checkpoint = resolve(asked)
    model = Idefics2Model(checkpoint, asked, Placement())
    assert isinstance(model, Idefics2Model)
    return model


@pytest.fixture(scope="module")
def model(checkpoint_folder: Path) -> Idefics2Model:
    return load(checkpoint_folder)


@pytest.fixture(scope="module")
def pages(checkpoint_folder: Path) -> list[Image]:
    """Seven pages of different sizes and shapes, planned and padded, grey and RGB."""
    encoder = encoder_of(checkpoint_folder)
    rng = np.random.default_rng(0)
    drawn = []
    sizes = [(595, 842), (842, 595), (300, 300), (80, 700), (613, 791), (40, 30), (555, 60)]
    for i, size in enumerate(sizes):
        plan = encoder.plan_page(*size, scalable=i != 5)
        shape = (plan.canvas_height, plan.canvas_width, 1 + 2 * (i % 2))
        canvas = np.full(shape, 255, np.uint8)
        noise = rng.integers(0, 256, (plan.height, plan.width, shape[2]), np.uint8)
        canvas[: plan.height, : plan.width] = noise // (i + 1)
        drawn.append(canvas)
    return drawn


@cache
def encoder_of(folder: Path, image_splitting: bool | str = "auto") -> PageEncoder:
    settings = ModelSettings(name=str(folder), image_splitting=image_splitting)
    return family_of(resolve(settings)).encoder(resolve(settings), settings)


@cache
def prompt(folder: Path, instructions: str = "Read the page.", n_pages: int = 1) -> str:
    checkpoint = resolve(ModelSettings(name=str(folder)))
    return family_of(checkpoint).prompt(
        checkpoint, ModelSettings(), conversation(parsed(instructions), n_pages), ""
    )


def model_input(folder: Path, *images: Image, instructions: str = "Read the page.") -> ModelInput:
    tiles = tuple(encoder_of(folder).encode(image) for image in images)
    return ModelInput(prompt(folder, instructions, len(images)), tiles)


def picture(image: Image) -> PIL.Image.Image:
    return PIL.Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


def stock_inputs(
    model: Idefics2Model, prompts: Sequence[str], images: Sequence[Sequence[Image]]
) -> Any:
    pictures = [[picture(image) for image in sample] for sample in images]
    return model.processor(
        images=pictures if any(pictures) else None,
        text=list(prompts),
        padding=True,
        return_tensors="pt",
    )


def stock_answers(
    model: Idefics2Model, prompts: Sequence[str], images: Sequence[Sequence[Image]], tokens: int
) -> list[str]:
    """What the documented use of transformers gives: processor, generate, batch_decode."""
    batch = stock_inputs(model, prompts, images)
    tokenizer = model.processor.tokenizer
    sequences = model.weights.generate(
        **batch,
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=list(model.vocabulary.stop_ids),
        pad_token_id=tokenizer.pad_token_id,
        bad_words_ids=[[i] for i in model.never],
    )
    answers = sequences[:, batch["input_ids"].shape[1] :]
    texts: list[str] = model.processor.batch_decode(answers, skip_special_tokens=True)
    return texts


@contextmanager
def swapped_rows(model: Idefics2Model, one: int, other: int) -> Iterator[None]:
    """Give one token's logit to another, and back."""
    rows = model.weights.lm_head.weight.data
    rows[[one, other]] = rows[[other, one]]
    yield
    rows[[one, other]] = rows[[other, one]]


def texts(outputs: Sequence[ModelOutput]) -> list[str]:
    return [output.text for output in outputs]


def test_one_pages_answer_is_the_stock_one(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    for page in pages[:3]:
        answers = model.generate([model_input(checkpoint_folder, page)], LONG)
        stock = stock_answers(model, [prompt(checkpoint_folder)], [[page]], LONG)
        assert texts(answers) == stock
        assert len(stock[0]) > LONG // 2


def test_a_batchs_answers_are_the_stock_ones(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    asked = ["Read.", "Read the page and answer.", "What is the total?", "", "X", "Date", "Y"]
    inputs = [
        model_input(checkpoint_folder, page, instructions=text)
        for page, text in zip(pages, asked, strict=True)
    ]
    answers = model.generate(inputs, LONG)
    stock = stock_answers(model, [i.prompt for i in inputs], [[page] for page in pages], LONG)
    assert texts(answers) == stock
    assert len(set(stock)) == len(stock), "the pages must tell the answers apart"
    assert len({answer.prompt_tokens for answer in answers}) > 1, "some row must be padded"


def test_prompts_of_several_pages_and_of_none_are_answered_as_the_stock_does(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    samples = [pages[:3], pages[3:4], pages[4:6]]
    inputs = [model_input(checkpoint_folder, *images) for images in samples]
    stock = stock_answers(model, [i.prompt for i in inputs], samples, LONG)
    assert texts(model.generate(inputs, LONG)) == stock
    (answer,) = model.generate([model_input(checkpoint_folder)], LONG)
    assert [answer.text] == stock_answers(model, [prompt(checkpoint_folder, n_pages=0)], [[]], LONG)


def test_prompt_tokens_count_the_prompt_without_padding(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    inputs = [
        model_input(checkpoint_folder, pages[0], instructions=text) for text in ("A", "A" * 50)
    ]
    short, long = model.generate(inputs, 1)
    (alone,) = model.generate(inputs[:1], 1)
    assert short.prompt_tokens == alone.prompt_tokens < long.prompt_tokens
    latents, fakes = 8, 6  # five tiles, and a fake token before, between and after them
    assert short.prompt_tokens > 5 * latents + fakes


def test_company_never_changes_an_answer(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    instructions = ["A", "Read the page and answer", "B" * 40, "", "C", "D" * 9, "E"]
    inputs = [
        model_input(checkpoint_folder, page, instructions=text)
        for page, text in zip(pages, instructions, strict=True)
    ]
    alone = [model.generate([item], LONG)[0] for item in inputs]
    for size, seed in ((4, 1), (7, 2), (7, 3)):
        order = random.Random(seed).sample(range(7), size)
        together = model.generate([inputs[i] for i in order], LONG)
        for i, answer in zip(order, together, strict=True):
            assert answer.token_ids == alone[i].token_ids
            assert answer.text == alone[i].text
            assert answer.finish_reason == alone[i].finish_reason
            assert answer.logprobs == pytest.approx(alone[i].logprobs, abs=1e-4)


def test_vision_features_are_the_stock_ones_of_padded_batches(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    inputs = [model_input(checkpoint_folder, page) for page in pages]
    shapes = {tile.shape[:2] for item in inputs for tile in item.tiles[0]}
    assert any(side % 14 for shape in shapes for side in shape), "some tile must be cut"
    batch = stock_inputs(model, [i.prompt for i in inputs], [[page] for page in pages])
    assert not bool(batch["pixel_attention_mask"].all()), "some tile must be padded"
    with torch.inference_mode():
        stock = model.weights.get_image_features(
            pixel_values=batch["pixel_values"], pixel_attention_mask=batch["pixel_attention_mask"]
        ).pooler_output
        ours = torch.cat(model.features([t for item in inputs for t in item.tiles[0]]))
    expected = torch.cat(list(stock))
    assert expected.std() > 0.1
    assert (expected[:8] - expected[40:48]).abs().max() > 0.1, "pages must differ"
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_size_of_a_vision_chunk_changes_nothing(
    model: Idefics2Model,
    checkpoint_folder: Path,
    pages: list[Image],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiles = [t for page in pages for t in model_input(checkpoint_folder, page).tiles[0]]
    with torch.inference_mode():
        together = model.features(tiles)
        monkeypatch.setattr(model, "max_tiles_per_chunk", 2)
        apart = model.features(tiles)
    assert len(together) == len(apart) == len(tiles) == 35
    torch.testing.assert_close(torch.stack(apart), torch.stack(together), atol=1e-5, rtol=1e-5)


def test_image_tokens_are_never_generated(
    make_checkpoint: MakeCheckpoint, pages: list[Image]
) -> None:
    def prefer_image_tokens(model: Any, tokenizer: Any) -> None:
        image, fake = tokenizer.convert_tokens_to_ids(NEVER)
        push = 100 * torch.ones_like(model.lm_head.weight[0])
        # Whatever the sum of the hidden state, one of the two is far ahead of every other token.
        model.lm_head.weight.data[image], model.lm_head.weight.data[fake] = push, -push

    folder = make_checkpoint(edit=prefer_image_tokens)
    rigged = load(folder)
    image, fake = rigged.processor.tokenizer.convert_tokens_to_ids(NEVER)
    batch = stock_inputs(rigged, [prompt(folder)], [[pages[0]]])
    with torch.inference_mode():
        assert int(rigged.weights(**batch).logits[0, -1].argmax()) in (image, fake)
    (answer,) = rigged.generate([model_input(folder, pages[0])], LONG)
    assert len(answer.token_ids) == LONG
    assert not {image, fake} & set(answer.token_ids)
    assert all(np.isfinite(answer.logprobs))


def test_rows_past_the_tokenizer_stand_for_no_text(
    model: Idefics2Model, checkpoint_folder: Path
) -> None:
    vocabulary = model.vocabulary
    named = len(model.processor.tokenizer)
    assert len(vocabulary.tokens) == model.weights.config.text_config.vocab_size == named + 3
    assert set(vocabulary.tokens[named:]) == {b""}
    del checkpoint_folder


def test_every_special_token_is_known_to_be_one(model: Idefics2Model) -> None:
    tokenizer = model.processor.tokenizer
    special = ["<unk>", "<s>", "</s>", "<end_of_utterance>", *NEVER]
    ids = tokenizer.convert_tokens_to_ids(special)
    assert set(ids) == set(model.vocabulary.special_ids)
    assert all(model.vocabulary.tokens[i] == b"" for i in ids)
    assert model.vocabulary.stop_ids == tuple(
        tokenizer.convert_tokens_to_ids(["</s>", "<end_of_utterance>"])
    )


def test_nanos_task_token_is_special() -> None:
    nano = load("nano")
    ids = nano.processor.tokenizer.convert_tokens_to_ids([*NEVER, "<receipt>"])
    assert set(ids) <= set(nano.vocabulary.special_ids)


@pytest.mark.parametrize("stop", ["<end_of_utterance>", "</s>"])
def test_an_answer_ends_before_a_stop_token(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image], stop: str
) -> None:
    inputs = [model_input(checkpoint_folder, page) for page in pages]
    plain = model.generate(inputs, LONG)
    row, step = next(
        (row, step)
        for row, answer in enumerate(plain)
        for step in range(2, LONG)
        if answer.token_ids[step] not in answer.token_ids[:step]
    )
    stop_id = model.processor.tokenizer.convert_tokens_to_ids(stop)
    with swapped_rows(model, plain[row].token_ids[step], stop_id):
        cut = model.generate(inputs, LONG)
    assert cut[row].token_ids == plain[row].token_ids[:step]
    assert len(cut[row].logprobs) == step
    assert cut[row].finish_reason is FinishReason.STOP
    assert plain[row].text.startswith(cut[row].text)
    assert stop not in cut[row].text


def test_an_answer_cut_by_the_limit_says_so(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    short, long = (
        model.generate([model_input(checkpoint_folder, pages[0])], limit)[0] for limit in (5, LONG)
    )
    assert short.finish_reason is FinishReason.LENGTH
    assert len(short.token_ids) == len(short.logprobs) == 5
    assert short.token_ids == long.token_ids[:5]


def test_logprobs_are_the_log_softmax_of_a_direct_forward(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    (answer,) = model.generate([model_input(checkpoint_folder, pages[0])], 6)
    assert len(answer.token_ids) == 6
    batch = stock_inputs(model, [prompt(checkpoint_folder)], [[pages[0]]])
    answered = torch.tensor([answer.token_ids])
    length = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], answered], 1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    with torch.inference_mode():
        logits = model.weights(**batch).logits[0, length - 1 : -1].clone()
        logits[:, list(model.never)] = -torch.inf
    expected = logits.log_softmax(-1).gather(1, answered.T)[:, 0]
    assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    assert answer.token_ids == tuple(logits.argmax(-1).tolist())
    assert min(answer.logprobs) < -0.01, "the model must be in some doubt"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_answers(checkpoint_folder: Path, pages: list[Image], dtype: str) -> None:
    half = load(checkpoint_folder, dtype=dtype)
    (answer,) = half.generate([model_input(checkpoint_folder, pages[0])], 4)
    assert len(answer.token_ids) == 4
    assert all(p <= 0 for p in answer.logprobs)


def test_splitting_set_by_the_job_holds_for_prompt_and_tiles(
    make_checkpoint: MakeCheckpoint, pages: list[Image]
) -> None:
    folder = make_checkpoint(splitting=True)
    whole = load(folder, image_splitting=False)
    encoder = encoder_of(folder, image_splitting=False)
    assert encoder.encode(pages[0])[0].shape[:2] == (112, 79)
    item = ModelInput(prompt(folder), (encoder.encode(pages[0]),))
    answers = whole.generate([item], LONG)
    whole.processor.image_processor.do_image_splitting = False
    assert texts(answers) == stock_answers(whole, [prompt(folder)], [[pages[0]]], LONG)


def test_tiles_that_do_not_fit_the_prompt_are_an_error_not_an_answer(
    model: Idefics2Model, checkpoint_folder: Path, pages: list[Image]
) -> None:
    item = model_input(checkpoint_folder, pages[0])
    with pytest.raises(ValueError, match="shorter than"):
        model.generate([ModelInput(item.prompt, (*item.tiles, *item.tiles))], 2)


def test_latents_that_contradict_the_processor_are_refused(
    make_checkpoint: MakeCheckpoint,
) -> None:
    folder = make_checkpoint(latents=8)
    file = folder / "processor_config.json"
    file.write_text(file.read_text().replace('"image_seq_len": 8', '"image_seq_len": 64'))
    with pytest.raises(CheckpointError, match=r"image_seq_len 64 .* and 8 latents") as caught:
        load(folder)
    assert "\n" not in str(caught.value)
