from __future__ import annotations

from collections.abc import Sequence

import pytest

from pipeline.engine.draft import Drafter, History, PageText

PAGE = "Kaf Luejex\n12 Oak Road\n2 Wilio Bars  9.40\n17 Grall  62.21\nTotal 71.61"


def drafter(most_tokens: int = 8) -> PageText:
    return PageText(PAGE, _tokens, _text, most_tokens)


def _tokens(text: str) -> list[int]:
    return list(text.encode())


def _text(ids: Sequence[int]) -> str:
    return bytes(ids).decode()


@pytest.mark.parametrize(
    ("answer", "guess"),
    [
        ('{"merchant":"Ka', "f Luejex"),
        ('{"merchant":"Kaf Lu', "ejex"),
        ('{"merchant":"Kaf Luejex","items":[{"name":"Wilio', " Bars"),
        ('{"name":"Grall","qty":17,"price":62', ".21"),
        ('{"name":"Grall","qty":17,"price": 62.', "21"),
        ('{"total":71', ".61"),
    ],
)
def test_the_page_goes_on_as_printed(answer: str, guess: str) -> None:
    assert _text(drafter(24).guess(_tokens(answer))) == guess


@pytest.mark.parametrize(
    "answer",
    ['{"merchant":"', '{"merchant":"K', '{"merchant":"Zz', '{"merchant":"af', '{"qty":1', "", "{"],
)
def test_no_guess_without_a_word_of_the_page(answer: str) -> None:
    assert drafter().guess(_tokens(answer)) == []


def test_a_guess_stays_on_its_line_and_within_its_length() -> None:
    assert _text(drafter(3).guess(_tokens('{"a":"12 Oak'))) == " Ro"
    assert drafter().guess(_tokens('{"a":"12 Oak Road')) == []


def test_what_occurs_twice_is_sought_from_the_last_place_on() -> None:
    page = PageText("Bread Roll\nBread Cake\nBread Rye", _tokens, _text, 8)
    assert _text(page.guess(_tokens('["Bread'))) == " Roll"
    assert _text(page.guess(_tokens('["Bread C'))) == "ake"
    assert _text(page.guess(_tokens('["Bread Cake","Bread'))) == " Rye"


def test_history_goes_on_as_answers_mostly_did_as_far_as_that_is_likely() -> None:
    history = History()
    assert history.guess(_tokens('{"a":1')) == []
    for number in range(9):
        history.learn(_tokens(f'{{"a":{number % 3},"b":"EUR"}}'))
    assert _text(history.guess(_tokens('{"a":2'))) == ',"b"'
    assert _text(history.guess(_tokens('{"a":7,"b":"'))) == 'EUR"'
    assert history.guess(_tokens('{"a":')) == []  # one of three digits


def test_what_anything_may_follow_is_remembered_in_bounded_space() -> None:
    history = History()
    for token in range(100, 1100):
        history.learn([1, 2, 3, token])
        history.learn([1, 2, 3, 7])
    assert history.guess([1, 2, 3]) == [7]
    assert max(len(followers.counts) for followers in history._followers.values()) <= 64


def test_history_forgets_the_rare_before_it_grows_beyond_its_bound() -> None:
    history = History(most_contexts=256)
    for _ in range(9):
        history.learn(_tokens("abcd"))
    for number in range(500):
        history.learn(_tokens(f"{number:03}x"))
    assert len(history) <= 256
    assert _text(history.guess(_tokens("ab"))) == "cd"


def test_the_page_is_believed_before_the_history() -> None:
    history = History()
    for _ in range(9):
        history.learn(_tokens('"Total"'))
    page = PageText("Tomato", _tokens, _text)
    assert _text(Drafter(history, page).guess(_tokens('"To'))) == "mato"
    assert _text(Drafter(history, page).guess(_tokens('"Tot'))) == 'al"T'
    assert _text(Drafter(history).guess(_tokens('"To'))) == 'tal"'
