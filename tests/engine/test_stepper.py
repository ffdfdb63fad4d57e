"""The running batch answers as `generate` does, in any company and any order."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline.engine.choose import Choice
from pipeline.engine.engine import Engine, Limits
from pipeline.engine.grammar import Grammar
from pipeline.engine.reader import Read
from pipeline.engine.request import Request
from pipeline.engine.row import Row
from pipeline.engine.running import RunningBatch
from pipeline.errors import ItemError
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import DeviceLost, ModelInput, ModelOutput, Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.token_by_token import TokenByToken
from pipeline.pretrain.examples import Geometry, Shot, page_example
from pipeline.prompting import conversation, parsed
from pipeline.records import FinishReason, Generation, Image
from pipeline.schema import load_schema
from pipeline.synth.document import make_document
from pipeline.synth.words import Split

SETTINGS = ModelSettings(name="nano")
COUNT = 8
LIMIT = 400


class Fixture:
    """`nano`, receipts, and what `generate` answers to them one by one."""

    def __init__(self) -> None:
        checkpoint = resolve(SETTINGS)
        self.family, self.checkpoint = family_of(checkpoint), checkpoint
        model = self.family.load(checkpoint, SETTINGS, Placement(threads=1))
        assert isinstance(model, TokenByToken)
        self.model = model
        schema = load_schema("receipt.v1").document
        self.grammar = Grammar(schema, model.vocabulary, compact=True)
        pages = [make_document(f"stepper/{i}", Split.TEST).pages[0] for i in range(COUNT)]
        self.tiles = [
            page_example(page, page.look, Shot(), Geometry((12, 16), 14), "receipt.v1").tile
            for page in pages
        ]
        self.texts = [page.layout.text for page in pages]
        self.expected = [self.whole([i]).text for i in range(COUNT)]

    def prompt(self, n_pages: int = 1) -> str:
        shown = conversation(parsed("{page}"), n_pages)
        return self.family.prompt(self.checkpoint, ModelSettings(), shown, "receipt.v1")

    def images(self, pages: Sequence[int]) -> tuple[tuple[Image, ...], ...]:
        return tuple((self.tiles[i],) for i in pages)

    def whole(self, pages: Sequence[int], limit: int = LIMIT) -> ModelOutput:
        item = ModelInput(self.prompt(len(pages)), self.images(pages), self.grammar.start())
        (output,) = self.model.generate([item], limit)
        return output

    def request(self, pages: Sequence[int], limit: int = LIMIT, text: str = "") -> Request:
        return Request(self.prompt(len(pages)), self.images(pages), limit, self.grammar, text)


@pytest.fixture(scope="module")
def nano() -> Fixture:
    return Fixture()


def answers(engine: Engine, requests: Sequence[Request]) -> list[Generation]:
    futures = [engine.submit(request) for request in requests]
    return [future.result(timeout=120) for future in futures]


@pytest.mark.parametrize("slots", [1, 4, 16])
def test_the_same_text_as_generate_in_any_order(nano: Fixture, slots: int) -> None:
    order = list(range(COUNT))
    random.Random(slots).shuffle(order)
    with Engine(nano.model, Limits(batch=slots)) as engine:
        found = answers(engine, [nano.request([i]) for i in order])
    assert [one.text for one in found] == [nano.expected[i] for i in order]
    assert all(one.finish_reason is FinishReason.STOP for one in found)
    assert all(len(one.token_ids) == len(one.logprobs) for one in found)
    assert all(logprob <= 0 for one in found for logprob in one.logprobs)


def test_guesses_from_the_text_layer_change_no_answer_and_save_passes(nano: Fixture) -> None:
    requests = [nano.request([i], text=nano.texts[i]) for i in range(COUNT)]
    with Engine(nano.model, Limits(batch=5)) as engine:
        found = answers(engine, requests)
    assert [one.text for one in found] == nano.expected
    assert sum(one.drafted_tokens for one in found) > 0
    for one in found:
        assert one.passes + one.drafted_tokens + one.forced_tokens == len(one.token_ids)


def test_a_misleading_text_layer_changes_no_answer(nano: Fixture) -> None:
    requests = [nano.request([i], text=nano.texts[i - 1]) for i in range(COUNT)]
    with Engine(nano.model, Limits(batch=5)) as engine:
        assert [one.text for one in answers(engine, requests)] == nano.expected


@pytest.mark.parametrize("speculate", [False, True])
def test_steps_of_fixed_shapes_change_no_answer(nano: Fixture, speculate: bool) -> None:
    limits = Limits(batch=5, speculate=speculate, fixed_steps=True)
    with Engine(nano.model, limits) as engine:
        found = answers(engine, [nano.request([i], text=nano.texts[i]) for i in range(COUNT)])
    assert [one.text for one in found] == nano.expected


def test_prompts_of_different_numbers_of_images_run_together(nano: Fixture) -> None:
    groups = [[0], [1, 2], [], [3], [4, 5, 6], [7, 0]]
    expected = [nano.whole(group, 40) for group in groups]
    with Engine(nano.model, Limits(batch=4)) as engine:
        found = answers(engine, [nano.request(group, 40) for group in groups])
    # A cut answer is closed by the engine, so only what was written freely can be compared.
    for one, whole in zip(found, expected, strict=True):
        assert whole.text.startswith(one.text[: len(one.text) // 2])
        assert one.prompt_tokens == whole.prompt_tokens


def test_a_sample_that_fails_in_a_step_fails_alone(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    guilty = nano.tiles[3]
    features = nano.model.features

    def failing(tiles: Sequence[Image]) -> list[Tensor]:
        if any(tile is guilty for tile in tiles):
            raise MemoryError("too much")
        return features(tiles)

    monkeypatch.setattr(nano.model, "features", failing)
    with Engine(nano.model, Limits(batch=4)) as engine:
        futures = [engine.submit(nano.request([i])) for i in range(COUNT)]
        found = [outcome(future) for future in futures]
    assert found == ["out_of_memory" if i == 3 else nano.expected[i] for i in range(COUNT)]


def test_a_lost_device_ends_the_engine_and_leaves_nobody_waiting(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(batch: RunningBatch, rows: Sequence[Row]) -> list[Choice]:
        raise DeviceLost("an illegal memory access was encountered")

    monkeypatch.setattr(RunningBatch, "step", lost)
    with Engine(nano.model, Limits(batch=2)) as engine:
        futures = [engine.submit(nano.request([i])) for i in range(6)]
        for future in futures:
            with pytest.raises(RuntimeError, match="illegal memory access"):
                future.result(timeout=60)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            engine.submit(nano.request([0]))


def test_closing_without_draining_leaves_nobody_waiting(nano: Fixture) -> None:
    engine = Engine(nano.model, Limits(batch=2))
    futures = [engine.submit(nano.request([i])) for i in range(6)]
    engine.close(drain=False)
    for future in futures:
        with pytest.raises(RuntimeError, match="closed"):
            future.result(timeout=60)


def test_rows_that_find_no_room_in_the_cache_fail_and_the_others_do_not(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    guilty = nano.request([2])
    place = RunningBatch.place

    def placing(batch: RunningBatch, read: Read) -> None:
        if any(row.request is guilty for row in read.rows):
            raise MemoryError("no room")
        place(batch, read)

    monkeypatch.setattr(RunningBatch, "place", placing)
    with Engine(nano.model, Limits(batch=4)) as engine:
        futures = [engine.submit(guilty if i == 2 else nano.request([i])) for i in range(COUNT)]
        found = [outcome(future) for future in futures]
    failed = [i for i, text in enumerate(found) if text != nano.expected[i]]
    assert 2 in failed
    assert len(failed) <= 4  # those that were read with it
    assert {found[i] for i in failed} == {"out_of_memory"}


def test_steps_that_run_out_of_memory_get_smaller_and_fail_nobody(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = RunningBatch.step
    refused: list[int] = []

    def stepping(batch: RunningBatch, rows: Sequence[Row]) -> list[Choice]:
        if len(rows) > 5:
            refused.append(len(rows))
            raise MemoryError("five at most")
        return step(batch, rows)

    monkeypatch.setattr(RunningBatch, "step", stepping)
    with Engine(nano.model, Limits(batch=16)) as engine:
        found = answers(engine, [nano.request([i]) for i in range(COUNT)])
    assert [one.text for one in found] == nano.expected
    # Some fifty steps: learned once, and tried again now and then as the parts grow.
    assert len(refused) < 10


@pytest.mark.parametrize("threads", [1, 2])
def test_a_prompt_for_which_others_left_no_memory_is_read_when_they_have_gone(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    big, running = nano.tiles[5], set[int]()
    features, step = nano.model.features, RunningBatch.step

    def stepping(batch: RunningBatch, rows: Sequence[Row]) -> list[Choice]:
        running.clear()
        choices = step(batch, rows)
        running.update(map(id, rows))
        return choices

    def seeing(tiles: Sequence[Image]) -> list[Tensor]:
        if any(tile is big for tile in tiles) and (len(tiles) > 1 or len(running) > 1):
            raise MemoryError("not beside others")
        return features(tiles)

    monkeypatch.setattr(RunningBatch, "step", stepping)
    monkeypatch.setattr(nano.model, "features", seeing)
    with Engine(nano.model, Limits(batch=4)) as engine:
        found = answers(engine, [nano.request([i]) for i in range(8)])
    assert [one.text for one in found] == nano.expected[:8]


def test_a_request_too_long_for_memory_takes_no_room_from_those_that_wait(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.engine.running.free_bytes", lambda _: 60_000_000)
    endless = replace(nano.model.decoder.shape, context=None)
    monkeypatch.setattr(nano.model.decoder, "shape", endless)
    engine = Engine(nano.model, Limits(batch=2, linger_s=1.0))
    requests = [nano.request([0]), nano.request([1], 100_000), nano.request([2], 40)]
    futures = [engine.submit(one) for one in requests]
    found = [outcome(future) for future in futures]
    engine.close()
    assert found[:2] == [nano.expected[0], "out_of_memory"]
    assert found[2].startswith(nano.expected[2][:20])


def test_a_request_too_long_beside_others_waits_until_they_have_left(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = 1500
    room = 2.5 * long * nano.model.decoder.shape.bytes_a_token  # for two such slots, not for four
    monkeypatch.setattr("pipeline.engine.running.free_bytes", lambda _: int(room))
    with Engine(nano.model, Limits(batch=4)) as engine:
        futures = [engine.submit(nano.request([i])) for i in range(6)]
        while engine.plan is None or engine.progress < 5:
            time.sleep(0.01)
        assert engine.plan.slots == 4
        futures += [engine.submit(nano.request([6], long)), engine.submit(nano.request([7]))]
        found = [outcome(future) for future in futures]
        assert engine.plan.slots < 4
    assert found == nano.expected[:8]


@pytest.mark.parametrize("fixed_steps", [False, True])
def test_slots_made_for_a_long_request_are_given_back_once_all_have_left(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch, fixed_steps: bool
) -> None:
    long = 1500
    room = 2.5 * long * nano.model.decoder.shape.bytes_a_token
    monkeypatch.setattr("pipeline.engine.running.free_bytes", lambda _: int(room))
    with Engine(nano.model, Limits(batch=4, fixed_steps=fixed_steps)) as engine:
        (first,) = answers(engine, [nano.request([0], long)])
        assert engine.plan is not None
        assert engine.plan.slots < 4
        found = answers(engine, [nano.request([i]) for i in range(1, 7)])
        assert engine.plan.slots == 4
    assert [one.text for one in (first, *found)] == nano.expected[:7]


def test_scores_that_are_not_numbers_fail_their_row_and_leave_a_clean_slot(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    guilty = nano.request([1])
    step = RunningBatch.step

    def stepping(batch: RunningBatch, rows: Sequence[Row]) -> list[Choice]:
        for row in rows:
            if row.request is guilty and row.passes == 5:
                for kept in (*batch._cache._keys, *batch._cache._values):
                    kept[row.slot] = torch.nan
        return step(batch, rows)

    monkeypatch.setattr(RunningBatch, "step", stepping)
    with Engine(nano.model, Limits(batch=2)) as engine:
        futures = [engine.submit(guilty if i == 1 else nano.request([i])) for i in range(6)]
        found = [outcome(future) for future in futures]
    assert found == ["model_error" if i == 1 else nano.expected[i] for i in range(6)]


@pytest.mark.parametrize("limit", [1, 3, 9, 40])
def test_no_answer_is_longer_than_its_limit(nano: Fixture, limit: int) -> None:
    with Engine(nano.model, Limits(batch=2)) as engine:
        (found,) = answers(engine, [nano.request([0], limit)])
    assert len(found.token_ids) <= limit
    assert len(found.token_ids) == len(found.logprobs)
    assert found.finish_reason is FinishReason.LENGTH


def test_an_answer_that_the_grammar_forces_whole_needs_no_pass(nano: Fixture) -> None:
    schema = {"type": "object", "properties": {"kind": {"const": "a"}}, "required": ["kind"]}
    grammar = Grammar(schema | {"additionalProperties": False}, nano.model.vocabulary, compact=True)
    asked = Request(nano.prompt(), nano.images([0]), LIMIT, grammar)
    with Engine(nano.model, Limits(batch=2)) as engine:
        (found,) = answers(engine, [asked])
    assert (found.text, found.passes) == ('{"kind":"a"}', 0)
    assert found.finish_reason is FinishReason.STOP


def test_reading_ahead_on_a_thread_of_its_own_changes_no_answer(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    order = random.Random(1).sample(range(COUNT), COUNT)
    with Engine(nano.model, Limits(batch=8)) as engine:
        found = answers(engine, [nano.request([i]) for i in order])
    assert [one.text for one in found] == [nano.expected[i] for i in order]


def test_a_failing_forward_pass_is_halved_down_to_the_guilty_row(
    nano: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    guilty = nano.request([5])
    step = RunningBatch.step

    def stepping(batch: RunningBatch, rows: Sequence[Row]) -> list[Choice]:
        if any(row.request is guilty and row.passes > 4 for row in rows):
            raise RuntimeError("a bad row")
        return step(batch, rows)

    monkeypatch.setattr(RunningBatch, "step", stepping)
    with Engine(nano.model, Limits(batch=16)) as engine:
        requests = [guilty if i == 5 else nano.request([i]) for i in range(COUNT)]
        futures = [engine.submit(one) for one in requests]
        found = [outcome(future) for future in futures]
    assert found == ["model_error" if i == 5 else nano.expected[i] for i in range(COUNT)]


def outcome(future: Future[Generation]) -> str:
    try:
        return future.result(timeout=120).text
    except ItemError as error:
        return str(error.kind)
