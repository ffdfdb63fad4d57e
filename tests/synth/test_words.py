import random

import pytest

from pipeline.synth.words import Split, made_up_word, split_of


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("bread", Split.TRAIN),
        ("grape", Split.VALIDATION),
        ("soup", Split.TEST),
        ("SOUP", Split.TEST),
    ],
)
def test_the_split_follows_from_the_spelling_alone(word: str, split: Split) -> None:
    assert split_of(word) is split


def test_splits_never_overlap() -> None:
    words = {
        split: {made_up_word(random.Random(seed), split, 3, 8) for seed in range(300)}
        for split in Split
    }
    assert all(len(found) > 200 for found in words.values())
    assert not words[Split.TRAIN] & words[Split.VALIDATION]
    assert not words[Split.TRAIN] & words[Split.TEST]
    assert not words[Split.VALIDATION] & words[Split.TEST]


def test_most_words_are_for_training() -> None:
    rng = random.Random(0)
    splits = [split_of("".join(rng.choices("abcdefgh", k=6))) for _ in range(5000)]
    assert 0.77 < splits.count(Split.TRAIN) / 5000 < 0.83
    assert 0.08 < splits.count(Split.TEST) / 5000 < 0.12


def test_lengths_are_kept() -> None:
    rng = random.Random(0)
    lengths = {len(made_up_word(rng, Split.TRAIN, 3, 5)) for _ in range(200)}
    assert lengths == {3, 4, 5}
