from __future__ import annotations

from collections.abc import Callable

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
