"""A few hundred mutated inputs; `make proof-fuzz` does tens of thousands."""

from __future__ import annotations

import random

import pytest
from fuzz_answers import Answers
from fuzz_documents import Documents
from fuzz_frame import Target
from fuzz_jobs import Jobs
from fuzz_papers import Papers


@pytest.mark.parametrize(
    ("make", "number"),
    [(Documents, 150), (Jobs, 150), (Answers, 25), (Papers, 75)],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_mutated_ends_as_the_laws_say(make: type[Target], number: int) -> None:
    target = make()
    try:
        for index in range(number):
            _, case = target.make(random.Random(f"{target.name} tests {index}"))
            target.judge(case)
    finally:
        target.close()
