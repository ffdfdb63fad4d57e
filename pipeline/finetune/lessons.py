"""Rows -> tokens and labels: what a run would ask, to the letter, and what should be answered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.conversation import Role, Turn
from pipeline.engine.grammar import DeadEnd
from pipeline.errors import InputError
from pipeline.finetune.answers import Writer
from pipeline.finetune.data import Row
from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.phrasing import Phrasing
from pipeline.finetune.samples import Drawn
from pipeline.models.base import Checkpoint, Family
from pipeline.models.context import context_of
from pipeline.models.image_text import ImageTextModel
from pipeline.prompting import Template, conversation, template_of
from pipeline.schema import Schema
from pipeline.stages.generate import filled

IGNORED = -100
"""The label of tokens that no loss counts."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A sample to learn: token `ids` and `labels` (`IGNORED` where nothing is), unpadded.

    `prompt` is what a run would ask at the last turn, and `answer` what is right then; `tiles` is
    the file of its images, and `whole` says that they are a whole document.
    """

    ids: Numbers
    labels: Numbers
    tiles: Path
    prompt: str
    answer: str
    whole: bool


class Teacher:
    """Makes lessons of rows, for one checkpoint and one job."""

    def __init__(
        self,
        job: FinetuneJob,
        schema: Schema,
        family: Family,
        checkpoint: Checkpoint,
        model: ImageTextModel,
    ) -> None:
        self._job, self._schema, self._model = job, schema, model
        compact, words = checkpoint.compact_json, model.vocabulary
        self.writer = Writer(job.as_run(), schema, words, compact=compact)
        self._tokenizer = model.processor.tokenizer
        stops = self._tokenizer.convert_ids_to_tokens(list(words.stop_ids))
        self._phrasing = Phrasing(
            family,
            checkpoint,
            job.model,
            schema.id,
            stops,
            self._tokenizer.eos_token,
            may_lead=job.task == "ocr" or not compact,
        )
        self._special = np.array(words.special_ids, np.int64)
        of_images = self._tokenizer.convert_tokens_to_ids(list(model.image_tokens))
        self._of_images = np.array(of_images, np.int64)

    def lesson(self, row: Row, drawn: Drawn) -> Lesson:
        """Return the row's tokens and labels.

        Raises
        ------
        InputError
            If an answer does not fit, or the model cannot write it. The message names the row.
        CheckpointError
            If the checkpoint cannot be asked so.
        """
        answers = self._answers(row, drawn)
        turns = self._turns(row, answers, len(drawn.numbers))
        *earlier, last = [
            filled(self._phrasing.prompt(turns[: i + 1]), drawn.text)
            for i, turn in enumerate(turns)
            if turn.role is Role.USER
        ]
        question = row.exchanges[0].question
        if question and question.strip() not in last:
            raise InputError(
                f"{row.where}: the model's chat template leaves its question out, so nothing of "
                "it could be learned; set model.chat_template to default, or take another model"
            )
        if not (drawn.shapes or drawn.text.strip()):
            raise InputError(f"{row.where}: has no text layer, and its prompt shows no image")
        text = self._widened(row, last, drawn)
        ids, offsets = self._tokens(text)
        labels = ids.copy() if self._job.learn_user_turns else np.full_like(ids, IGNORED)
        for prompt, answer in zip(earlier, answers, strict=False):
            start = len(self._widened(row, prompt, drawn))
            said = self._phrasing.stretch(text, start, answer)
            inside = (offsets[:, 0] >= said.start) & (offsets[:, 1] <= said.end)
            inside &= offsets[:, 1] > offsets[:, 0]
            labels[inside] = ids[inside]
        written = self._behind(ids, text, self._phrasing.answered(turns, answers[-1]))
        self._check(row, written, whole=drawn.whole)
        self._check_room(row, len(ids) + len(written))
        ids, labels = np.concatenate([ids, written]), np.concatenate([labels, written])
        labels[np.isin(ids, self._of_images)] = IGNORED
        labels[0] = IGNORED  # nothing comes before it to tell it from
        return Lesson(ids, labels, drawn.file, last, answers[-1], drawn.whole)

    def template(self, row: Row) -> Template:
        """Return the instructions that the row's pages are put into."""
        question = row.exchanges[0].question
        job = self._job
        if job.task == "ask" and not (question or job.question or job.prompt):
            raise InputError(f"{row.where}: has no question, nor has the job; task ask needs one")
        return template_of(job.as_run(question), self._schema)

    def _answers(self, row: Row, drawn: Drawn) -> list[str]:
        return [
            self.writer.write(one, row.where, whole=drawn.whole, follows=number > 0)
            for number, one in enumerate(row.exchanges)
        ]

    def _turns(self, row: Row, answers: list[str], n_pages: int) -> list[Turn]:
        """Return the conversation up to the last question."""

        def turns() -> Iterator[Turn]:
            yield from conversation(self.template(row), n_pages, self._job.preamble)
            for answer, one in zip(answers, row.exchanges[1:], strict=False):
                yield Turn(Role.ASSISTANT, (answer,))
                yield Turn(Role.USER, (one.question or "",))

        return list(turns())

    def _widened(self, row: Row, prompt: str, drawn: Drawn) -> str:
        if prompt.count("<image>") != len(drawn.shapes):
            raise InputError(f"{row.where}: a text of it holds <image>; remove that")
        return self._model.widened(prompt, drawn.shapes)

    def _tokens(self, text: str) -> tuple[Numbers, Numbers]:
        """Return a text's ids as a run has them, and the characters from and to of each."""
        encoding = self._model.tokenized([text])
        ids = encoding["input_ids"][0].numpy()
        offsets = np.array(encoding.encodings[0].offsets, np.int64)
        # Some families put the token that begins a sequence into the text itself.
        return ids, offsets - max(0, offsets.max() - len(text))

    def _behind(self, ids: Numbers, text: str, written: str) -> Numbers:
        """Return the ids of what is written behind a prompt, whose own stay as they are."""
        both, _ = self._tokens(text + written)
        if len(both) > len(ids) and np.array_equal(both[: len(ids)], ids):
            return both[len(ids) :]
        alone: Any = self._tokenizer(written, add_special_tokens=False)
        return np.array(alone["input_ids"], np.int64)

    def _check_room(self, row: Row, tokens: int) -> None:
        context = context_of(self._model.weights.config.get_text_config())
        if context is not None and tokens > context:
            raise InputError(
                f"{row.where}: its {tokens:,} tokens do not fit the model's context of "
                f"{context:,}; name fewer pages, or show smaller ones"
            )

    def _check(self, row: Row, written: Numbers, *, whole: bool) -> None:
        odd = written[:-1][np.isin(written[:-1], self._special)]
        if len(odd):
            token = self._tokenizer.convert_ids_to_tokens(int(odd[0]))
            raise InputError(
                f"{row.where}: answer: this model's tokenizer has no token for some of it, or "
                f"takes it for a special one ({token})"
            )
        last = row.exchanges[-1].answer
        if not self.writer.grammars or (len(row.exchanges) > 1 and isinstance(last, str)):
            return
        state = self.writer.grammars[whole].start()
        try:
            for token in written[:-1].tolist():
                state.accept(token)
            state.end()
        except (ValueError, DeadEnd) as error:
            raise InputError(
                f"{row.where}: answer: constrained decoding cannot write it; mend it, or set "
                "constrained: false"
            ) from error
