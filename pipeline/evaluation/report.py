"""The figures of a whole run, as a table for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.evaluation.scores import FieldScore, ListScore, Scores


@dataclass(slots=True)
class Evaluation:
    """What a run's answers are worth.

    `scores` are over all documents of the truth, and `groups` over those with one value of the
    truth's column `by`. `unlabelled` counts rows that the truth does not have, `unknown_keys` the
    truth's keys that the schema does not name, by path; neither counts in any figure.
    """

    output: str
    truth: str
    schema_id: str
    run_id: str
    by: str | None
    scores: Scores = field(default_factory=Scores)
    groups: dict[str, Scores] = field(default_factory=dict)
    unlabelled: int = 0
    unknown_keys: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return all figures as one JSON object; see docs/EVALUATION.md for its keys."""
        return json.dumps(
            {
                "output": self.output,
                "truth": self.truth,
                "run_id": self.run_id,
                "schema_id": self.schema_id,
                **scores_figures(self.scores),
                "unlabelled": self.unlabelled,
                "unknown_keys": dict(self.unknown_keys),
                "by": self.by,
                "groups": {name: scores_figures(one) for name, one in self.sorted_groups()},
            },
            ensure_ascii=False,
        )

    def sorted_groups(self) -> list[tuple[str, Scores]]:
        """Return the groups by name."""
        return sorted(self.groups.items())

    def print(self, console: Console) -> None:
        """Print the figures for people."""
        console.print(self._overview())
        console.print()
        console.print(_fields_table(self.scores.fields))
        if self.scores.lists:
            console.print()
            console.print(_lists_table(self.scores.lists))
        if self.by is not None:
            console.print()
            console.print(self._groups_table(self.by))

    def _overview(self) -> Table:
        table = Table(title=f"run {self.run_id}, {self.schema_id}", show_header=False, box=None)
        table.title_justify = "left"
        for row in self._overview_rows():
            table.add_row(row[0], Text(row[1]))
        return table

    def _overview_rows(self) -> Iterator[tuple[str, str]]:
        scores = self.scores
        states = ", ".join(f"{n:,} {state}" for state, n in scores.states.most_common())
        yield "documents in the truth", f"{scores.documents:,}: {states}"
        yield "read without an error", _share(scores.exact, scores.documents)
        yield "ANLS*", _number(scores.anls)
        if lost := scores.documents - scores.with_record:
            yield "without a record", f"{lost:,}; all their values count as not right"
        if self.unlabelled:
            yield "not in the truth", f"{self.unlabelled:,} rows, which count nowhere"
        if self.unknown_keys:
            yield "not in the schema", f"{', '.join(self.unknown_keys)}: not compared"

    def _groups_table(self, by: str) -> Table:
        shown = [path for path in self.scores.fields if "[]" not in path][:_MAIN_FIELDS]
        lists = [path for path in self.scores.lists if "[]" not in path][:_MAIN_LISTS]
        headings = ["documents", "exact", "ANLS*", *shown, *(f"{path} F1" for path in lists)]
        table = _table(by, *headings)
        for name, scores in self.sorted_groups():
            correct = (scores.fields[path] for path in shown)
            table.add_row(
                Text(name),
                f"{scores.documents:,}",
                f"{scores.exact:,}",
                _number(scores.anls),
                *(f"{one.correct:,}/{one.places:,}" for one in correct),
                *(_percent(scores.lists[path].f1) for path in lists),
            )
        return table


_MAIN_FIELDS, _MAIN_LISTS = 5, 2


def scores_figures(scores: Scores) -> dict[str, Any]:
    """Return figures as JSON values; null where a figure would divide by nothing."""
    return {
        "documents": scores.documents,
        "with_record": scores.with_record,
        "states": dict(scores.states),
        "exact": scores.exact,
        "exact_rate": scores.exact_rate,
        "anls": scores.anls,
        "fields": {path: field_figures(one) for path, one in scores.fields.items()},
        "lists": {path: _list_figures(one) for path, one in scores.lists.items()},
    }


def field_figures(score: FieldScore) -> dict[str, Any]:
    """Return a field's counts and rates as JSON values."""
    return {
        **asdict(score),
        "places": score.places,
        "correct": score.correct,
        "accuracy": score.accuracy,
        "alike_accuracy": score.alike_accuracy,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "cer": score.cer,
    }


def _list_figures(score: ListScore) -> dict[str, Any]:
    return {
        **asdict(score),
        "count_accuracy": score.count_accuracy,
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
    }


def _fields_table(fields: Mapping[str, FieldScore]) -> Table:
    headings = ("correct", "", "alike", "prec.", "recall", "wrong", "missing")
    table = _table("field", *headings, "invented", "CER")
    for path, score in fields.items():
        table.add_row(
            Text(path),
            f"{score.correct:,}/{score.places:,}",
            _percent(score.accuracy),
            _percent(score.alike_accuracy),
            _percent(score.precision),
            _percent(score.recall),
            f"{score.wrong:,}",
            f"{score.missing + score.unread:,}",
            f"{score.invented + score.extra:,}",
            _percent(score.cer),
        )
    return table


def _lists_table(lists: Mapping[str, ListScore]) -> Table:
    headings = ("right length", "", "items", "answered", "whole", "prec.", "recall")
    table = _table("list", *headings, "F1")
    for path, score in lists.items():
        table.add_row(
            Text(path),
            f"{score.count_right:,}/{score.lists:,}",
            _percent(score.count_accuracy),
            f"{score.truth_items:,}",
            f"{score.answer_items:,}",
            f"{score.whole:,}",
            _percent(score.precision),
            _percent(score.recall),
            _percent(score.f1),
        )
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column(Text(first), overflow="fold")
    for heading in others:
        table.add_column(Text(heading), justify="right", no_wrap=True)
    return table


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" + (f", {part / whole:.1%}" if whole else "")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
