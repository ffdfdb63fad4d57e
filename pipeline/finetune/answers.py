"""What is right, as the model should write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.engine.grammar import Grammar
from pipeline.errors import InputError
from pipeline.finetune.data import Exchange
from pipeline.job import Job
from pipeline.lake.exact_json import dumps, loads
from pipeline.lake.json_schema import unwrap, without_unstated
from pipeline.models.base import Vocabulary
from pipeline.schema import Schema, Validator, relax


class Writer:
    """Writes answers as constrained decoding would: JSON in the order of the schema's keys.

    Task ocr answers with text.
    """

    def __init__(self, job: Job, schema: Schema, vocabulary: Vocabulary, *, compact: bool) -> None:
        self._job, self._schema, self._compact = job, schema, compact
        relaxed = relax(schema)
        self._judges = {True: Validator(schema.document), False: Validator(relaxed)}
        self.grammars: dict[bool, Grammar] = {}
        if job.task != "ocr" and job.generation.constrained:
            self.grammars = {
                True: Grammar(schema.document, vocabulary, compact=compact),
                False: Grammar(relaxed, vocabulary, compact=compact),
            }

    def write(self, exchange: Exchange, where: str, *, whole: bool, follows: bool) -> str:
        """Return the answer's text.

        The answer about a `whole` document fits the schema, one about some of its pages the relaxed
        schema. Text that `follows` other turns is taken as it is.

        Raises
        ------
        InputError
            If the answer does not fit. The message names the row.
        """
        answer = exchange.answer
        if self._job.task == "ocr":
            text = answer if isinstance(answer, str) else answer.get("text")
            if not isinstance(text, str) or not text:
                raise InputError(f"{where}: answer: task ocr answers with text; write it as such")
            return text
        if isinstance(answer, str):
            if follows:
                return answer
            answer = self._object(answer, where)
        if exchange.typed:
            answer = without_unstated(answer, self._schema.document, self._schema.document)
        if (complaint := self._judges[whole].violation(answer)) is not None:
            raise InputError(f"{where}: does not fit schema {self._schema.id}: {complaint}")
        ordered = in_order(answer, self._schema.document, self._schema.document)
        return dumps(ordered, spaced=not self._compact)

    def _object(self, text: str, where: str) -> Mapping[str, Any]:
        try:
            value = loads(text)
        except ValueError as error:
            if self._job.task == "ask":
                return {"answer": text}
            raise InputError(f"{where}: answer: is not JSON: {error}") from None
        if isinstance(value, dict):
            return value
        if self._job.task == "ask":
            return {"answer": text}
        raise InputError(f"{where}: answer: is no JSON object; write one")


def in_order(value: Any, schema: Any, root: Mapping[str, Any]) -> Any:
    """Return a record with its keys in the order of the schema's; others behind them."""
    plain, _ = unwrap(schema, root)
    if isinstance(value, Mapping):
        properties = _properties(plain, root)
        known = [*(name for name in properties if name in value), *value]
        return {
            name: in_order(value[name], properties.get(name), root) for name in dict.fromkeys(known)
        }
    if isinstance(value, list):
        return [in_order(item, plain.get("items"), root) for item in value]
    return value


def _properties(plain: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a schema, and of the branches that it leaves a choice of."""
    found = dict(plain.get("properties", {}))
    for keyword in ("anyOf", "oneOf"):
        for branch in plain.get(keyword, ()):
            inner, _ = unwrap(branch, root)
            for name, child in inner.get("properties", {}).items():
                found.setdefault(name, child)
    return found
