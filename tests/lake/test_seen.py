from __future__ import annotations

import random

import pytest

from pipeline.lake import seen as seen_module
from pipeline.lake.seen import Seen


def test_a_key_is_new_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after it was sorted in, and beside others that are alike in one half."""
    monkeypatch.setattr(seen_module, "_FEW", 16)
    chance = random.Random(1)
    halves = [chance.randbytes(8) for _ in range(20)] + [bytes(8), b"\xff" * 8]
    keys = [high + low for high in halves for low in halves]
    chance.shuffle(keys)
    seen, known = Seen(), set()
    for key in chance.choices(keys, k=2000):
        assert seen.add(key) == (key not in known)
        known.add(key)
