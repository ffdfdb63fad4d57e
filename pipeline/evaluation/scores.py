"""The figures: of a field, of a list, of one document, and of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import add, attrgetter
from typing import Self

from pipeline.evaluation.shape import Kind


class Outcome(StrEnum):
    """How one value ended. Every value ends in exactly one of these."""

    RIGHT = "right"  # stated by both, and the same
    WRONG = "wrong"  # stated by both, and not the same
    MISSING = "missing"  # stated by the truth only
    INVENTED = "invented"  # the truth says null, and the answer a value
    SILENT = "silent"  # null in both, and so as it should be
    UNREAD = "unread"  # null in the truth, and no record or item that could say so
    EXTRA = "extra"  # in a list's item that the truth does not have


@dataclass(frozen=True, slots=True)
class FieldScore:
    """Values of one leaf, counted by `Outcome`.

    `alike` counts strings that are stated by both and the same but for case and white space, the
    right ones among them. `edits` and `characters` (of the truth) are those of strings.
    """

    kind: Kind
    right: int = 0
    wrong: int = 0
    missing: int = 0
    invented: int = 0
    silent: int = 0
    unread: int = 0
    extra: int = 0
    alike: int = 0
    edits: int = 0
    characters: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(self.kind, *map(add, _field_counts(self), _field_counts(other)))

    @property
    def places(self) -> int:
        """How many values the truth has room for: all but the extra ones."""
        return sum((self.right, self.wrong, self.missing, self.invented, self.silent, self.unread))

    @property
    def correct(self) -> int:
        """How many places are as the truth has them: right, or null where it says null."""
        return self.right + self.silent

    @property
    def accuracy(self) -> float | None:
        """Correct places by places."""
        return _ratio(self.correct, self.places)

    @property
    def alike_accuracy(self) -> float | None:
        """As `accuracy`, case and white space of strings set aside; None if not a string."""
        return _ratio(self.alike + self.silent, self.places) if self._is_text else None

    @property
    def precision(self) -> float | None:
        """Right values by the values that the answers state."""
        return _ratio(self.right, self.right + self.wrong + self.invented + self.extra)

    @property
    def recall(self) -> float | None:
        """Right values by the values that the truth states."""
        return _ratio(self.right, self.right + self.wrong + self.missing)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        stated = self.wrong + self.missing + self.wrong + self.invented + self.extra
        return _ratio(2 * self.right, 2 * self.right + stated)

    @property
    def cer(self) -> float | None:
        """Character error rate over all values; None if not a string."""
        return _ratio(self.edits, self.characters) if self._is_text else None

    @property
    def _is_text(self) -> bool:
        return self.kind is Kind.STRING


@dataclass(frozen=True, slots=True)
class ListScore:
    """Lists of one path: `whole` counts items that are the same in truth and answer.

    `lists` are the truth's; `count_right` those with as many items in the answer.
    """

    lists: int = 0
    count_right: int = 0
    truth_items: int = 0
    answer_items: int = 0
    whole: int = 0

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(add, _list_counts(self), _list_counts(other)))

    @property
    def count_accuracy(self) -> float | None:
        """Lists of the right length by lists."""
        return _ratio(self.count_right, self.lists)

    @property
    def precision(self) -> float | None:
        """Whole items by the answers' items."""
        return _ratio(self.whole, self.answer_items)

    @property
    def recall(self) -> float | None:
        """Whole items by the truth's items."""
        return _ratio(self.whole, self.truth_items)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.whole, self.truth_items + self.answer_items)


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A value that is not as the truth has it.

    `place` is a path such as "items[2].price", counted from 0 in the truth (in the answer, for an
    extra value). The texts are the values as JSON, strings without quotes; None is null.
    """

    place: str
    outcome: Outcome
    truth: str | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class DocumentScore:
    """One document. `exact` is True if every value is right and no list has an extra item."""

    exact: bool
    anls: float
    fields: Mapping[str, FieldScore]
    lists: Mapping[str, ListScore]
    mismatches: tuple[Mismatch, ...]


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """A document of the truth beside a run.

    `uri` is the truth's, `document_uri` the row's; None if the output has no row of it. `group` is
    the value of the column that the documents are grouped by, "" if none was asked for.
    """

    uri: str
    document_uri: str | None
    group: str
    state: str
    with_record: bool
    score: DocumentScore


@dataclass(slots=True)
class Scores:
    """Many documents, added one by one. `documents` counts all, those without a record too.

    `states` counts the rows' states; "no row" is that of a document which the output lacks.
    """

    documents: int = 0
    with_record: int = 0
    exact: int = 0
    anls_sum: float = 0.0
    states: Counter[str] = field(default_factory=Counter)
    fields: dict[str, FieldScore] = field(default_factory=dict)
    lists: dict[str, ListScore] = field(default_factory=dict)

    def add(self, score: DocumentScore, state: str = "ok", *, with_record: bool = True) -> None:
        """Count one document more."""
        self.documents += 1
        self.with_record += with_record
        self.exact += score.exact
        self.anls_sum += score.anls
        self.states[state] += 1
        for path, one in score.fields.items():
            self.fields[path] = self.fields[path] + one if path in self.fields else one
        for path, each in score.lists.items():
            self.lists[path] = self.lists[path] + each if path in self.lists else each

    @property
    def exact_rate(self) -> float | None:
        """Documents read without any error, by documents."""
        return _ratio(self.exact, self.documents)

    @property
    def anls(self) -> float | None:
        """Mean ANLS* of a document, 0 for one without a record."""
        return self.anls_sum / self.documents if self.documents else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


_field_counts = attrgetter(*(one.name for one in fields(FieldScore) if one.name != "kind"))
_list_counts = attrgetter(*(one.name for one in fields(ListScore)))
