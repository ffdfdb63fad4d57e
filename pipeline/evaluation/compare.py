"""One answer beside its truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.evaluation.anls import anls_star
from pipeline.evaluation.metrics import alike, edits, matches, pair_items
from pipeline.evaluation.scores import (
    DocumentScore,
    FieldScore,
    ListScore,
    Mismatch,
    Outcome,
)
from pipeline.evaluation.shape import (
    Kind,
    Leaf,
    List,
    Object,
    RecordShape,
    Shape,
    join,
    record_shape,
    restricted,
)
from pipeline.lake.exact_json import dumps

_NO_PLACE: Any = object()
"""Stands for a value whose record or item is not there."""


def score(
    schema: Mapping[str, Any], truth: Mapping[str, Any], answer: Mapping[str, Any] | None
) -> DocumentScore:
    """Score one answer beside its truth, by a JSON Schema. For many, see `score_record`.

    Records are JSON objects with numbers as int, Decimal or float. `answer` is None if there is no
    record: nothing of it is right then, not even what the truth leaves null.

    Raises
    ------
    SchemaError
        If a `$ref` cannot be followed or an `x-arrow` annotation cannot be read.
    """
    return score_record(record_shape(schema), truth, answer)


def score_record(
    shape: RecordShape, truth: Mapping[str, Any], answer: Mapping[str, Any] | None
) -> DocumentScore:
    """Score one answer beside its truth, by a shape of `record_shape`. See `score`."""
    tally = _Tally(shape)
    tally.compare(shape.root, truth, _NO_PLACE if answer is None else answer, "", "")
    there = answer is not None
    return DocumentScore(
        exact=there and tally.is_clean,
        anls=anls_star(restricted(shape.root, truth), restricted(shape.root, answer))
        if there
        else 0.0,
        fields={path: FieldScore(shape.leaves[path], **n) for path, n in tally.counts.items()},
        lists=tally.lists,
        mismatches=tuple(tally.mismatches),
    )


class _Tally:
    """Walks a record and its truth together, and sums up what it meets.

    `counts` are the numbers of a `FieldScore`, by path and name.
    """

    def __init__(self, shape: RecordShape) -> None:
        self.counts: dict[str, Counter[str]] = {path: Counter() for path in shape.leaves}
        self.lists = {path: ListScore() for path in shape.lists}
        self.mismatches: list[Mismatch] = []

    @property
    def is_clean(self) -> bool:
        """True if nothing was met that is not as the truth has it."""
        return not self.mismatches and all(
            one.count_right == one.lists for one in self.lists.values()
        )

    def compare(self, shape: Shape, truth: Any, answer: Any, path: str, place: str) -> None:
        """Compare one value with all that is in it; `place` is `path` with the items' indices."""
        match shape:
            case Leaf(kind):
                self._compare_leaf(kind, truth, answer, path or "record", place or "record")
            case Object(fields):
                for name, child in fields.items():
                    inside = (_inside(truth, name), _inside(answer, name))
                    self.compare(child, *inside, join(path, name), join(place, name))
            case List(item):
                self._compare_list(item, truth, answer, path, place)

    def _compare_leaf(self, kind: Kind, truth: Any, answer: Any, path: str, place: str) -> None:
        outcome = _outcome(kind, truth, answer)
        if outcome is None:
            return
        counts = self.counts[path]
        counts[outcome.value] += 1
        if kind is Kind.STRING:
            expected, found = _text(truth) or "", _text(answer) or ""
            counts["alike"] += outcome is Outcome.RIGHT or alike(truth, answer)
            counts["edits"] += edits(expected, found)
            counts["characters"] += len(expected)
        if outcome not in (Outcome.RIGHT, Outcome.SILENT, Outcome.UNREAD):
            self.mismatches.append(Mismatch(place, outcome, _text(truth), _text(answer)))

    def _compare_list(self, item: Shape, truth: Any, answer: Any, path: str, place: str) -> None:
        truths = truth if isinstance(truth, list) else []
        answers = answer if isinstance(answer, list) else []
        pairs, n_same = pair_items(item, truths, answers)
        both_there = truth is not _NO_PLACE and answer is not _NO_PLACE
        self.lists[path] += ListScore(
            lists=int(truth is not _NO_PLACE),
            count_right=int(both_there and len(truths) == len(answers)),
            truth_items=len(truths),
            answer_items=len(answers),
            whole=n_same,
        )
        found = dict(pairs)
        for i, one in enumerate(truths):
            beside = answers[found[i]] if i in found else _NO_PLACE
            self.compare(item, one, beside, f"{path}[]", f"{place}[{i}]")
        for j in sorted(set(range(len(answers))).difference(found.values())):
            self.compare(item, _NO_PLACE, answers[j], f"{path}[]", f"{place}[{j}]")


def _inside(value: Any, name: str) -> Any:
    if value is _NO_PLACE:
        return _NO_PLACE
    return value.get(name) if isinstance(value, dict) else None


def _outcome(kind: Kind, truth: Any, answer: Any) -> Outcome | None:
    """Return how a value ended; None if there is no value: null, in an extra item."""
    if truth is _NO_PLACE:
        return None if answer is None else Outcome.EXTRA
    if answer is _NO_PLACE:
        return Outcome.UNREAD if truth is None else Outcome.MISSING
    if answer is None:
        return Outcome.SILENT if truth is None else Outcome.MISSING
    if truth is None:
        return Outcome.INVENTED
    return Outcome.RIGHT if matches(kind, truth, answer) else Outcome.WRONG


def _text(value: Any) -> str | None:
    if value is None or value is _NO_PLACE:
        return None
    return value if isinstance(value, str) else dumps(value)
