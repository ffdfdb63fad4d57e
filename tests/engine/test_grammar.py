"""Answers under a grammar: whatever the model prefers, what it finishes is valid."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE

from pipeline.engine.grammar import Grammar, check_schema
from pipeline.errors import SchemaError
from pipeline.lake.exact_json import loads
from pipeline.model_settings import Model as ModelSettings
from pipeline.models.base import Placement, Vocabulary
from pipeline.models.fake import FakeModel
from pipeline.models.families import family_of, resolve
from pipeline.schema import Validator, load_schema, make_schema, relax

SPECIAL = ["<unk>", "<s>", "</s>", "<image>", "<end_of_utterance>"]
CORPUS = [
    '{"merchant": "Corner Shop", "date": "2024-01-31", "items": [{"name": "Tea", "qty": 2}]}',
    '{"invoice_number":"A-1","vendor":{"name":"X","address":null},"lines":[],"totals":{}}',
    "true false null 0.5 -12 1e3 EUR USD GBP CHF straße 東京 — the page and its total",
]
PACKAGED = ["receipt.v1", "invoice.v1", "text.v1", "answer.v1"]
LIMIT = 6000


def byte_level() -> Vocabulary:
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return trained(tokenizer, pre_tokenizers.ByteLevel.alphabet())


def sentence_pieces() -> Vocabulary:
    """As Mistral's: words start with a space, and unknown characters fall back to bytes."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return trained(tokenizer, [], *(f"<0x{i:02X}>" for i in range(256)))


def trained(tokenizer: Tokenizer, alphabet: list[str], *extra: str) -> Vocabulary:
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*SPECIAL, *extra],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:  # bytes are text
        token["special"] = token["content"] in SPECIAL
    content["added_tokens"] = [t for t in content["added_tokens"] if t["special"]]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    size = tokenizer.get_vocab_size()
    special = tuple(range(len(SPECIAL)))
    return Vocabulary(
        tokens=tuple(
            b"" if i in special else (tokenizer.id_to_token(i) or "").encode()
            for i in range(size + 3)
        ),
        special_ids=special,
        stop_ids=(2, 4),
        backend=tokenizer.to_str(),
    )


def bundled() -> Vocabulary:
    settings = ModelSettings(name="nano")
    checkpoint = resolve(settings)
    return family_of(checkpoint).load(checkpoint, settings, Placement()).vocabulary


MAKERS: dict[str, Callable[[], Vocabulary]] = {
    "bytes": lambda: FakeModel().vocabulary,
    "byte_level": byte_level,
    "pieces": sentence_pieces,
    "nano": bundled,
}
GENERAL = ["bytes", "byte_level", "pieces"]


class Vocabularies(dict[str, Vocabulary]):
    def __missing__(self, name: str) -> Vocabulary:
        self[name] = MAKERS[name]()
        return self[name]


@pytest.fixture(scope="session")
def vocabularies() -> Vocabularies:
    return Vocabularies()


def decode(vocabulary: Vocabulary, ids: list[int]) -> str:
    if vocabulary.backend is None:
        return b"".join(vocabulary.tokens[i] for i in ids).decode()
    text: str = Tokenizer.from_str(vocabulary.backend).decode(ids, skip_special_tokens=True)
    return text


def write(
    grammar: Grammar, vocabulary: Vocabulary, rng: np.random.Generator
) -> tuple[list[int], bool]:
    """Follow random logits to a stop token, or to the limit. The logits hurry to close."""
    closing = np.array([bool(set(token) & set(b'"]}')) for token in vocabulary.tokens])
    state, ids = grammar.start(), []
    for _ in range(LIMIT):
        allowed = state.allowed()
        assert allowed.shape == (len(vocabulary.tokens),)
        assert allowed.dtype == np.bool_
        assert allowed.any(), f"a dead end after {decode(vocabulary, ids)!r}"
        forbidden = sorted(set(vocabulary.special_ids) - set(vocabulary.stop_ids))
        assert not allowed[forbidden].any()
        logits = rng.normal(size=len(allowed)) + 3 * closing
        token = int(np.where(allowed, logits, -np.inf).argmax())
        if token in vocabulary.stop_ids:
            return ids, True
        state.accept(token)
        ids.append(token)
    return ids, False


def record_of(text: str) -> Any:
    try:
        return loads(text)
    except ValueError as error:
        if "out of range" not in str(error):
            raise
        # Grammars let exponents grow without end; such numbers are the parse stage's business.
        return loads(re.sub(r"(?<=\d)[eE][+-]?\d{15,}", "", text))


def assert_style(text: str, *, compact: bool) -> None:
    """No whitespace outside strings but one space after a comma or colon, if at all."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text.removeprefix(" "))
    if compact:
        assert not re.search(r"\s", bare)
    else:
        assert not re.search(r"\s", re.sub(r"(?<=[,:]) ", "", bare))
        assert not re.search(r"[,:](?! )", bare)


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("schema_id", PACKAGED)
@pytest.mark.parametrize("name", GENERAL)
def test_what_is_finished_is_valid(
    vocabularies: Vocabularies, name: str, schema_id: str, compact: bool
) -> None:
    schema, vocabulary = load_schema(schema_id), vocabularies[name]
    for document in (schema.document, relax(schema)):
        grammar = Grammar(document, vocabulary, compact=compact)
        validator = Validator(document)
        for seed in range(2):
            ids, finished = write(grammar, vocabulary, np.random.default_rng(seed))
            assert finished
            text = decode(vocabulary, ids)
            assert validator.violation(record_of(text)) is None, text
            assert_style(text, compact=compact)


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("schema_id", PACKAGED)
def test_the_bundled_models_vocabulary_meets_no_dead_end(
    vocabularies: Vocabularies, schema_id: str, relaxed: bool
) -> None:
    """Its tokens of several characters, fixed text of receipts, must fit wherever they are."""
    schema, vocabulary = load_schema(schema_id), vocabularies["nano"]
    document = relax(schema) if relaxed else schema.document
    grammar = Grammar(document, vocabulary, compact=True)
    validator = Validator(document)
    for seed in range(8):
        ids, finished = write(grammar, vocabulary, np.random.default_rng(seed))
        assert finished
        assert validator.violation(record_of(decode(vocabulary, ids))) is None


def test_the_bundled_model_goes_on_after_the_date(vocabularies: Vocabularies) -> None:
    vocabulary = vocabularies["nano"]
    grammar = Grammar(relax(load_schema("receipt.v1")), vocabulary, compact=True)
    state = grammar.start()
    index = {token: i for i, token in reversed(list(enumerate(vocabulary.tokens)))}
    opening = [b'{"merchant":"', b"A", b'","date":"', *(bytes([c]) for c in b"2024-01-31")]
    for token in [*opening, b'","items":[{"name":"']:
        assert state.allowed()[index[token]], token
        state.accept(index[token])
    assert state.allowed()[index[b"T"]]


def schemas() -> st.SearchStrategy[dict[str, Any]]:
    words = st.text("abxyzé_ ", min_size=1, max_size=6)
    scalars = st.one_of(
        st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 8)),
        st.just({"type": "string", "format": "date"}),
        st.just({"type": "string", "pattern": "^[A-Z]{2,3}$"}),
        st.builds(
            lambda low, span: {"type": "integer", "minimum": low, "maximum": low + span},
            st.integers(-50, 50),
            st.integers(0, 200),
        ),
        st.just({"type": "number", "minimum": -5, "maximum": 5}),
        st.just({"type": "integer", "minimum": -99, "maximum": 99}),
        st.sampled_from([{"type": "boolean"}, {"type": "null"}]),
        st.builds(lambda v: {"enum": v}, st.lists(words, min_size=1, max_size=3, unique=True)),
        st.builds(lambda v: {"const": v}, st.one_of(words, st.integers(-9, 9), st.none())),
        st.just({"type": ["string", "null"], "maxLength": 5}),
    )

    def nested(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
        arrays = st.builds(
            lambda items, least, more: {
                "type": "array",
                "items": items,
                "minItems": least,
                "maxItems": least + more,
            },
            inner,
            st.integers(0, 2),
            st.integers(0, 2),
        )
        nullable = st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner)
        return st.one_of(arrays, nullable, objects(inner, words))

    return objects(st.recursive(scalars, nested, max_leaves=6), words)


def objects(
    inner: st.SearchStrategy[dict[str, Any]], words: st.SearchStrategy[str]
) -> st.SearchStrategy[dict[str, Any]]:
    def build(properties: dict[str, Any], keep: list[bool]) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": properties,
            "required": [key for key, kept in zip(properties, keep, strict=False) if kept],
            "additionalProperties": False,
        }

    return st.builds(
        build,
        st.dictionaries(words, inner, min_size=1, max_size=4),
        st.lists(st.booleans(), min_size=4, max_size=4),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    document=schemas(),
    seed=st.integers(0, 99),
    name=st.sampled_from(GENERAL),
    compact=st.booleans(),
)
def test_what_is_finished_is_valid_by_any_schema(
    vocabularies: Vocabularies, document: dict[str, Any], seed: int, name: str, compact: bool
) -> None:
    schema, vocabulary = make_schema(document, "made", "made"), vocabularies[name]
    for judged in (schema.document, relax(schema)):
        grammar = Grammar(judged, vocabulary, compact=compact)
        ids, finished = write(grammar, vocabulary, np.random.default_rng(seed))
        assert finished
        text = decode(vocabulary, ids)
        assert Validator(judged).violation(record_of(text)) is None, text
        assert_style(text, compact=compact)


@pytest.mark.parametrize("name", GENERAL)
def test_keys_come_in_the_schemas_order(vocabularies: Vocabularies, name: str) -> None:
    document = load_schema("receipt.v1").document
    grammar = Grammar(document, vocabularies[name])
    ids, _ = write(grammar, vocabularies[name], np.random.default_rng(5))
    assert list(loads(decode(vocabularies[name], ids))) == list(document["properties"])


@pytest.mark.parametrize("name", MAKERS)
def test_after_the_last_brace_only_a_stop_token_is_allowed(
    vocabularies: Vocabularies, name: str
) -> None:
    vocabulary = vocabularies[name]
    grammar = Grammar(load_schema("receipt.v1").document, vocabulary, compact=True)
    ids, _ = write(grammar, vocabulary, np.random.default_rng(0))
    state = grammar.start()
    for token in ids:
        assert not state.allowed()[list(vocabulary.stop_ids)].any()
        state.accept(token)
    for _ in range(2):  # asking changes nothing
        assert set(np.flatnonzero(state.allowed())) == set(vocabulary.stop_ids)


@pytest.mark.parametrize("name", GENERAL)
def test_a_token_that_is_not_allowed_is_refused(vocabularies: Vocabularies, name: str) -> None:
    state = Grammar(load_schema("text.v1").document, vocabularies[name]).start()
    wrong = int(np.flatnonzero(~state.allowed())[-1])
    with pytest.raises(ValueError, match="not allowed"):
        state.accept(wrong)


def test_answers_under_way_do_not_share_their_state(vocabularies: Vocabularies) -> None:
    vocabulary = vocabularies["bytes"]
    grammar = Grammar(load_schema("text.v1").document, vocabulary)
    one, other = grammar.start(), grammar.start()
    before = other.allowed().copy()
    for byte in b'{"text": "a':
        one.accept(byte)
    assert np.array_equal(other.allowed(), before)
    assert not np.array_equal(one.allowed(), before)


def test_text_that_looks_like_a_special_token_is_only_text(vocabularies: Vocabularies) -> None:
    """A page may show "<image>": spelled out it is allowed, as the token it is not."""
    vocabulary = vocabularies["byte_level"]
    tokenizer = Tokenizer.from_str(vocabulary.backend)
    image = tokenizer.token_to_id("<image>")
    texts = {i: tokenizer.decode([i]) for i in range(len(SPECIAL), tokenizer.get_vocab_size())}
    state = Grammar(load_schema("text.v1").document, vocabulary).start()
    rest = '{"text": "<image>"}'
    while rest:
        allowed = state.allowed()
        assert not allowed[image]
        token = next(i for i, text in texts.items() if allowed[i] and rest.startswith(text))
        state.accept(token)
        rest = rest.removeprefix(texts[token])
    assert set(np.flatnonzero(state.allowed())) == set(vocabulary.stop_ids)


UNUSABLE: list[tuple[str, dict[str, Any]]] = [
    ("uniqueItems", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
    ("contains", {"type": "array", "contains": {"const": 1}}),
    ("not", {"not": {"type": "null"}}),
    ("if", {"if": {"type": "null"}, "then": {}, "else": {}}),
    ("dependentRequired", {"type": "object", "dependentRequired": {"a": ["b"]}}),
    ("propertyNames", {"type": "object", "propertyNames": {"maxLength": 3}}),
]


@pytest.mark.parametrize(("keyword", "inner"), UNUSABLE)
def test_a_keyword_that_cannot_be_enforced_is_refused(keyword: str, inner: dict[str, Any]) -> None:
    document = {"type": "object", "properties": {"field": inner}, "required": ["field"]}
    with pytest.raises(SchemaError) as caught:
        check_schema(document, "mine.v2")
    message = str(caught.value)
    assert message.startswith("schema mine.v2: ")
    assert keyword in message
    assert "generation.constrained" in message
    assert "\n" not in message


@pytest.mark.parametrize("schema_id", PACKAGED)
def test_packaged_schemas_can_be_enforced(schema_id: str) -> None:
    schema = load_schema(schema_id)
    check_schema(schema.document, schema.id)
    check_schema(relax(schema), schema.id)


def test_a_tokenizer_that_cannot_start_an_answer_is_refused() -> None:
    mute = Vocabulary(tokens=(b"a", b"b", b""), special_ids=(2,), stop_ids=(2,))
    with pytest.raises(SchemaError, match="no token that could start"):
        Grammar(load_schema("text.v1").document, mute)


def test_random_walks_differ(vocabularies: Vocabularies) -> None:
    """The tests above would show little if every walk were the same."""
    vocabulary = vocabularies["byte_level"]
    grammar = Grammar(load_schema("receipt.v1").document, vocabulary)
    walks = {tuple(write(grammar, vocabulary, np.random.default_rng(seed))[0]) for seed in range(6)}
    assert len(walks) == 6
