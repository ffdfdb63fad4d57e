from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.job import Job
from pipeline.runners.recipe import prepare

MakeJob = Callable[..., Job]


@pytest.mark.parametrize("change", [{"quantization": "nf4"}, {"dtype": "bfloat16"}])
def test_how_weights_are_held_is_part_of_what_a_row_is(
    make_job: MakeJob, change: dict[str, str]
) -> None:
    plain = prepare(make_job(["a.pdf"]), "run")
    other = prepare(make_job(["a.pdf"], model={"name": "nano", **change}), "run")
    ((key, value),) = other.identity.items() - plain.identity.items()
    assert (key, value) == (f"model.{next(iter(change))}", *change.values())
    assert other.provenance.fingerprint != plain.provenance.fingerprint
    assert value in (other.weights or "")


def test_words_that_the_chat_template_leaves_out_are_told() -> None:
    def warned(**settings: Any) -> list[str]:
        job = {"input": {"paths": ["x"]}, "schema": "receipt.v1", "output": {"uri": "y"}}
        return list(prepare(Job.model_validate({**job, **settings}), "run").warnings)

    assert warned() == []
    (told,) = warned(preamble="Only totals.")
    assert told == "preamble: the chat template of 'nano' leaves it out; it is not told"
    assert [one.partition(":")[0] for one in warned(prompt="Read {page}.")] == ["prompt"]


def test_a_bound_on_lists_is_part_of_what_a_row_is() -> None:
    def fingerprint(**settings: Any) -> str:
        job = {"input": {"paths": ["x"]}, "schema": "receipt.v1", "output": {"uri": "y"}}
        job |= {"generation": settings}
        return prepare(Job.model_validate(job), "run").provenance.fingerprint

    assert fingerprint(max_items=10) != fingerprint(max_items=99)
