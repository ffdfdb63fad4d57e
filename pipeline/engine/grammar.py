"""JSON Schema as a grammar over tokens (llguidance).

The grammar fixes keys' order to the schema's and allows no whitespace but one fixed style, so that
an answer cannot wander off into blanks. Special tokens are never allowed, except a stop token where
the value is complete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer, TokenizerWrapper
from llguidance.numpy import (
    fill_next_token_bitmask_par,
    fill_next_token_bitmask_par_with_draft_tokens,
)
from numpy.typing import NDArray

from pipeline.engine.token_table import TokenTable
from pipeline.errors import PagelakeError, SchemaError
from pipeline.models.base import Vocabulary

_COMPACT = {"whitespace_flexible": False}
_SPACED = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammar:
    """A schema compiled for one tokenizer: compile once a process, `start` once an answer.

    Raises
    ------
    SchemaError
        If the schema uses a keyword that cannot be turned into a grammar.
    """

    def __init__(
        self, schema: Mapping[str, Any], vocabulary: Vocabulary, *, compact: bool = False
    ) -> None:
        tokenizer, canonical = _tokenizer(vocabulary)
        self._tokens = TokenTable(vocabulary, canonical=canonical)
        source = _source(schema, compact=compact, canonical=canonical)
        self._matcher = LLMatcher(tokenizer, source, log_level=0)
        if self._matcher.is_error():
            raise SchemaError(_reason(self._matcher.get_error()))
        try:
            self.start().allowed()
        except DeadEnd as error:
            raise SchemaError("the model's tokenizer has no token that could start it") from error

    def start(self) -> GrammarState:
        """Return a fresh state for one answer."""
        return GrammarState(self._matcher.deep_copy(), self._tokens)


class DeadEnd(PagelakeError):
    """The grammar asks for text that the model's tokenizer has no token for."""

    def __init__(self) -> None:
        super().__init__("the schema asks for text that this model's tokenizer cannot write")


class GrammarState:
    """A `pipeline.models.base.Constraint` backed by llguidance."""

    def __init__(self, matcher: LLMatcher, tokens: TokenTable) -> None:
        self.matcher = matcher
        self._tokens = tokens

    def allowed(self) -> NDArray[np.bool_]:
        """Return bool (vocabulary size,): the tokens that keep the answer valid.

        Where one text alone can follow, that is the token which the model's tokenizer would write
        it with, and no other.

        Raises
        ------
        DeadEnd
            If the answer is not complete and no token leads on.
        """
        if self.matcher.is_stopped():
            return self._tokens.only(self._stop())
        if forced := self.forced():
            return self._tokens.only(forced[:1])
        packed = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        if self.matcher.is_stopped():
            return self._tokens.only(self._stop())
        return np.unpackbits(packed, bitorder="little")[: self._tokens.size].view(np.bool_)

    def forced(self) -> list[int]:
        """Return the tokens that must come next, as far as there is no choice; often none.

        Raises
        ------
        DeadEnd
            As `allowed`.
        """
        if self.matcher.is_stopped():
            return self._stop()[:1]
        if self._tokens.canonical:
            forced: list[int] = self.matcher.compute_ff_tokens()
            return forced
        return self._tokens.spell(self.matcher.compute_ff_bytes())

    def accept(self, token_id: int) -> None:
        """Move past one allowed token."""
        if not self.matcher.consume_token(token_id):
            raise ValueError(f"token {token_id} is not allowed here: {self.matcher.get_error()}")

    def end(self) -> None:
        """Raise DeadEnd if the answer is not complete: masks allow a stop token there too."""
        if not self.matcher.is_accepting():
            raise DeadEnd

    def closing(self, limit: int) -> list[int] | None:
        """Return a short way to complete the answer, stop token left out; None if beyond `limit`.

        Takes what closes before what goes on, so strings and lists end at once and missing keys
        get the least value that the schema allows. None, too, if the tokenizer cannot write it.
        """
        state = GrammarState(self.matcher.deep_copy(), self._tokens)
        way: list[int] = []
        while len(way) <= limit:
            try:
                options = np.flatnonzero(state.allowed())
            except DeadEnd:
                return None
            token = int(options[self._tokens.closing_rank[options].argmin()])
            if token in self._tokens.stop_ids:
                return way
            state.accept(token)
            way.append(token)
        return None

    def _stop(self) -> list[int]:
        # The matcher stops before the stop token is consumed, or where it knows no way on.
        self.end()
        return list(self._tokens.stop_ids)


class Masks:
    """What may follow, for many answers at once, computed on `threads` threads without the GIL.

    `size` is the vocabulary's; tokens of `never` are not allowed where there is no grammar either.
    """

    def __init__(self, size: int, never: Sequence[int], threads: int) -> None:
        self._executor = LLExecutor(threads)
        self._words = -(-size // 32)
        free = np.ones(self._words * 32, np.bool_)
        free[list(never)] = False
        self._free = np.packbits(free, bitorder="little").view(np.int32)

    def packed(
        self, asked: Sequence[tuple[GrammarState | None, Sequence[int]]]
    ) -> NDArray[np.uint8]:
        """Return uint8 (positions, bytes): a bit a token, the least significant first.

        Each answer has a position for what may follow now, and one behind each token of its draft.
        Behind a token that is not allowed everything is. Where no token leads on, a stop token is
        allowed: see `GrammarState.end`.
        """
        starts = np.cumsum([0, *(1 + len(draft) for _, draft in asked)]).tolist()
        bits = np.full((starts[-1], self._words), -1, np.int32)
        plain: list[tuple[LLMatcher, int]] = []
        drafted: list[tuple[LLMatcher, int, list[int]]] = []
        for start, (state, draft) in zip(starts, asked, strict=False):
            if state is None:
                bits[start : start + 1 + len(draft)] = self._free
            elif draft:
                drafted.append((state.matcher, start, list(draft)))
            else:
                plain.append((state.matcher, start))
        if plain:
            fill_next_token_bitmask_par(self._executor, plain, bits)
        if drafted:
            fill_next_token_bitmask_par_with_draft_tokens(self._executor, drafted, bits)
        return bits.view(np.uint8)


def check_schema(schema: Mapping[str, Any], name: str) -> None:
    """Raise SchemaError, naming the schema, if it cannot be turned into a grammar."""
    try:
        Grammar(schema, _BYTES)
    except SchemaError as error:
        raise SchemaError(
            f"schema {name}: {error}; remove that keyword, or set generation.constrained: false"
        ) from error


def _source(schema: Mapping[str, Any], *, compact: bool, canonical: bool) -> str:
    styled = {**schema, "x-guidance": _COMPACT if compact else _SPACED}
    # Where the grammar leaves one way to go on, the library takes the tokens that the tokenizer
    # would: right for a real tokenizer, a dead end for a list of long tokens.
    options = "" if canonical else '%llguidance {"no_forcing": true}\n'
    # Tokenizers of the sentencepiece kind start a word with a space: one is let through.
    start = "value" if compact else '" "? value'
    lark = f"{options}start: {start}\nvalue: %json {json.dumps(styled)}\n"
    grammar: str = LLMatcher.grammar_from_lark(lark)
    return grammar


def _tokenizer(vocabulary: Vocabulary) -> tuple[LLTokenizer, bool]:
    """Return the library's tokenizer, and whether it tokenizes as the model's own does."""
    stop_ids = list(vocabulary.stop_ids)
    if vocabulary.backend is not None:
        try:
            size = len(vocabulary.tokens)
            return LLTokenizer(vocabulary.backend, n_vocab=size, eos_token=stop_ids), True
        except ValueError:
            pass  # a decoder that the library does not know: its tokens are plain text
    return LLTokenizer(TokenizerWrapper(_PlainTokens(vocabulary)), eos_token=stop_ids), False


class _PlainTokens:
    """A vocabulary in the shape that llguidance wraps."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.eos_token_id = vocabulary.stop_ids[0]
        self.special_token_ids = list(vocabulary.special_ids)
        special = set(vocabulary.special_ids)
        # The library knows a special token by its own name, which no text may contain.
        self.tokens = [
            f"<|special {i}|>".encode() if i in special else token
            for i, token in enumerate(vocabulary.tokens)
        ]

    def __call__(self, text: str | bytes) -> list[int]:
        """Never asked for the tokens of any text, because the grammar forces none."""
        del text
        return []


def _reason(error: str) -> str:
    first = error.splitlines()[0] if error else "cannot be compiled"
    return " ".join(first.split())[:300]


_BYTES = Vocabulary(
    tokens=(*(bytes([i]) for i in range(256)), b""),
    special_ids=(256,),
    stop_ids=(256,),
)
"""One token a byte and a stop token: the smallest vocabulary that can write anything."""
