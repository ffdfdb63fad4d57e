"""Batching, blame and closing, with a model that does as each request's prompt says."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pipeline.engine.blame import halving
from pipeline.engine.engine import Engine, Limits
from pipeline.engine.grammar import Grammar
from pipeline.engine.request import Request
from pipeline.errors import ItemError
from pipeline.models.base import DeviceLost, ModelInput, ModelOutput, Vocabulary
from pipeline.models.fake import FakeModel
from pipeline.records import FailureKind, FinishReason, Generation

TILES = ((np.zeros((2, 3, 1), np.uint8),),)
PATIENCE_S = 30.0


class Obedient:
    """Answers a prompt with itself in capitals; fails every batch that holds a bad one."""

    def __init__(self, gate: threading.Event | None = None) -> None:
        self.batches: list[list[str]] = []
        self.limits: list[int] = []
        self._gate = gate
        self._inside = threading.Lock()

    @property
    def vocabulary(self) -> Vocabulary:
        return FakeModel().vocabulary

    def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
        assert self._inside.acquire(blocking=False), "a model has one caller at a time"
        try:
            if self._gate is not None:
                assert self._gate.wait(PATIENCE_S)
            prompts = [item.prompt for item in inputs]
            self.batches.append(prompts)
            self.limits.append(max_new_tokens)
            if any("memory" in prompt for prompt in prompts):
                raise MemoryError("no room\nfor it")
            if any("crash" in prompt for prompt in prompts):
                raise RuntimeError("shapes (3,\n 4) do not fit")
            if any("lost" in prompt for prompt in prompts):
                return []
            if len(inputs) > 1 and any("greedy" in prompt for prompt in prompts):
                raise MemoryError("no room in company")
            return [answer(prompt) for prompt in prompts]
        finally:
            self._inside.release()


def answer(prompt: str) -> ModelOutput:
    return ModelOutput(prompt.upper(), (1, 2), (-0.5, 0.0), FinishReason.STOP, len(prompt))


def request(prompt: str, max_new_tokens: int = 8, grammar: Grammar | None = None) -> Request:
    return Request(prompt, TILES, max_new_tokens, grammar)


def outcome(future: Future[Generation]) -> str:
    try:
        return future.result(timeout=PATIENCE_S).text
    except ItemError as error:
        return str(error.kind)


def test_a_generation_is_the_models_output_with_its_times() -> None:
    with Engine(Obedient(), Limits()) as engine:
        generation = engine.submit(request("total")).result(PATIENCE_S)
    assert generation.text == "TOTAL"
    assert generation.token_ids == (1, 2)
    assert generation.logprobs == (-0.5, 0.0)
    assert generation.finish_reason is FinishReason.STOP
    assert generation.prompt_tokens == 5
    assert 0 <= generation.queue_s < PATIENCE_S
    assert 0 <= generation.model_s < PATIENCE_S


def test_requests_of_many_threads_are_all_answered_each_with_its_own() -> None:
    model = Obedient()
    prompts = [f"page {i}" for i in range(400)]
    with Engine(model, Limits(batch=7)) as engine, ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda p: engine.submit(request(p)), prompts))
        assert [outcome(f) for f in futures] == [p.upper() for p in prompts]
    assert max(map(len, model.batches)) <= 7
    assert sorted(p for batch in model.batches for p in batch) == sorted(prompts)


def test_requests_that_wait_go_in_one_batch_in_their_order() -> None:
    gate = threading.Event()
    model = Obedient(gate)
    with Engine(model, Limits(batch=4, linger_s=0)) as engine:
        first = engine.submit(request("first"))
        while engine._queue.qsize():  # the model is busy with it
            time.sleep(0.001)
        futures = [engine.submit(request(f"page {i}")) for i in range(6)]
        gate.set()
        assert [outcome(f) for f in futures] == [f"PAGE {i}" for i in range(6)]
        assert outcome(first) == "FIRST"
    assert model.batches == [
        ["first"],
        ["page 0", "page 1", "page 2", "page 3"],
        ["page 4", "page 5"],
    ]


@pytest.mark.parametrize("guilty", range(7))
@pytest.mark.parametrize(
    ("word", "kind"),
    [("crash", "model_error"), ("memory", "out_of_memory"), ("lost", "model_error")],
)
def test_blame_lands_on_the_guilty_sample_alone(guilty: int, word: str, kind: str) -> None:
    prompts = [f"page {i}" for i in range(7)]
    prompts[guilty] = word
    with Engine(Obedient(), Limits(batch=7, linger_s=5)) as engine:
        outcomes = [outcome(f) for f in [engine.submit(request(p)) for p in prompts]]
    assert outcomes == [kind if p == word else p.upper() for p in prompts]


def test_several_guilty_samples_each_get_their_own_blame() -> None:
    prompts = ["a", "crash", "memory", "b", "crash too", "c"]
    with Engine(Obedient(), Limits(batch=6, linger_s=5)) as engine:
        outcomes = [outcome(f) for f in [engine.submit(request(p)) for p in prompts]]
    assert outcomes == ["A", "model_error", "out_of_memory", "B", "model_error", "C"]


def test_what_fails_in_company_only_is_answered_alone() -> None:
    with Engine(Obedient(), Limits(batch=4, linger_s=5)) as engine:
        futures = [engine.submit(request(p)) for p in ("a", "greedy", "b", "greedy too")]
        assert [outcome(f) for f in futures] == ["A", "GREEDY", "B", "GREEDY TOO"]


def test_an_item_errors_message_is_one_line_that_names_the_exception() -> None:
    with Engine(Obedient(), Limits()) as engine:
        for prompt, message in (
            ("crash", "RuntimeError: shapes (3, 4) do not fit"),
            ("memory", "MemoryError: no room for it"),
        ):
            with pytest.raises(ItemError) as caught:
                engine.submit(request(prompt)).result(PATIENCE_S)
            assert caught.value.message == message
    assert caught.value.kind is FailureKind.OUT_OF_MEMORY


def test_the_engine_works_on_after_a_failure() -> None:
    with Engine(Obedient(), Limits()) as engine:
        for _ in range(3):
            assert outcome(engine.submit(request("crash"))) == "model_error"
            assert outcome(engine.submit(request("page"))) == "PAGE"


def test_a_cancelled_request_does_no_harm() -> None:
    gate = threading.Event()
    model = Obedient(gate)
    with Engine(model, Limits(batch=2, linger_s=0)) as engine:
        first = engine.submit(request("first"))
        while engine._queue.qsize():
            time.sleep(0.001)
        second, third = engine.submit(request("second")), engine.submit(request("crash third"))
        fourth, fifth = engine.submit(request("fourth")), engine.submit(request("fifth"))
        assert second.cancel()
        assert fourth.cancel()
        gate.set()
        assert outcome(first) == "FIRST"
        assert outcome(third) == "model_error"
        assert outcome(fifth) == "FIFTH"
        with pytest.raises(CancelledError):
            second.result(PATIENCE_S)


def test_no_request_is_answered_past_its_own_limit() -> None:
    vocabulary = FakeModel().vocabulary
    schema = {
        "type": "object",
        "properties": {"text": {"type": "string"}},
        "required": ["text"],
        "additionalProperties": False,
    }
    grammar = Grammar(schema, vocabulary)
    with Engine(FakeModel(), Limits(batch=2, linger_s=5)) as engine:
        short, long = (engine.submit(request("p", limit, grammar)) for limit in (3, 500))
        cut, whole = short.result(PATIENCE_S), long.result(PATIENCE_S)
    assert len(cut.token_ids) == 3
    assert cut.finish_reason is FinishReason.LENGTH
    assert whole.finish_reason is FinishReason.STOP
    assert whole.text.startswith(cut.text)


def test_closing_answers_what_is_queued() -> None:
    gate = threading.Event()
    engine = Engine(Obedient(gate), Limits(batch=3))
    futures = [engine.submit(request(f"page {i}")) for i in range(10)]
    closing = threading.Thread(target=engine.close)
    closing.start()
    gate.set()
    assert [outcome(f) for f in futures] == [f"PAGE {i}" for i in range(10)]
    closing.join(PATIENCE_S)
    assert not closing.is_alive()


def test_nothing_is_taken_after_closing() -> None:
    engine = Engine(Obedient(), Limits())
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.submit(request("late"))


def test_a_request_taken_while_the_engine_closes_is_answered() -> None:
    engine = Engine(Obedient(), Limits())
    entered, closed = threading.Event(), threading.Event()

    class SlowQueue:
        """The engine's queue, which dawdles over requests until the engine is closed."""

        def __init__(self, inner: Any) -> None:
            self.get, self._put = inner.get, inner.put

        def put(self, item: Any) -> None:
            if item is not None:
                entered.set()
                closed.wait(0.2)
            self._put(item)

    engine._queue = SlowQueue(engine._queue)
    with ThreadPoolExecutor(1) as threads:
        submitting = threads.submit(engine.submit, request("page"))
        assert entered.wait(PATIENCE_S)
        engine.close()
        closed.set()
        assert submitting.result(PATIENCE_S).result(2).text == "PAGE"


def test_every_attempt_at_a_sample_gets_a_fresh_grammar() -> None:
    """A failed batch may have moved its grammars on."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "null"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    grammar = Grammar(schema, FakeModel().vocabulary)

    class FailsInCompany(FakeModel):
        def generate(self, inputs: Sequence[ModelInput], max_new_tokens: int) -> list[ModelOutput]:
            outputs = super().generate(inputs, max_new_tokens)
            if len(inputs) > 1:
                raise RuntimeError("after the grammars were used")
            return outputs

    with Engine(FailsInCompany(), Limits(batch=4, linger_s=5)) as engine:
        futures = [engine.submit(request(f"p{i}", 50, grammar)) for i in range(4)]
        assert {outcome(f).strip() for f in futures} == {'{"a": null}'}


def test_what_a_failed_attempt_held_is_gone_when_its_halves_are_tried() -> None:
    class Activations:
        """Stands for what a pass keeps on the device."""

    held: list[weakref.ref[Activations]] = []
    alive: list[int] = []

    def work(items: Sequence[int]) -> None:
        alive.append(sum(one() is not None for one in held))
        activations = Activations()
        held.append(weakref.ref(activations))
        if len(items) > 1:
            try:
                raise RuntimeError("CUDA out of memory")
            except RuntimeError as error:
                raise MemoryError("no room") from error

    halving(work, range(4), lambda _, error: pytest.fail(str(error)))
    assert len(alive) == 7
    assert set(alive) == {0}


def test_a_lost_device_is_nobodys_fault() -> None:
    def work(items: Sequence[int]) -> None:
        raise DeviceLost("gone")

    with pytest.raises(DeviceLost):
        halving(work, range(4), lambda _, error: pytest.fail(str(error)))
