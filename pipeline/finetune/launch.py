"""A fine-tuning from job to result, in one process: the only one, or a worker of several."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.distributed as dist

from pipeline.errors import CheckpointError, JobError
from pipeline.finetune import made_for
from pipeline.finetune.curve import Curve
from pipeline.finetune.data import Row, read_rows, split
from pipeline.finetune.freezing import adapt, count, freeze, remember_less
from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.learner import Collator, Learner, Lessons
from pipeline.finetune.lessons import Lesson, Teacher
from pipeline.finetune.samples import Studio
from pipeline.finetune.stopping import Stopping
from pipeline.lake.folders import lock, output_folder
from pipeline.model_settings import Model
from pipeline.models.base import Placement
from pipeline.models.families import family_of, resolve
from pipeline.models.image_text import ImageTextModel
from pipeline.prompting import shows_images
from pipeline.schema import load_schema

PAGES = "pages"
"""Where drawn pages are kept, below the output."""

_TOLD = 500


def train(job: FinetuneJob) -> bool:
    """Train, going on from the output folder's last checkpoint if there is one.

    Where torch.distributed is running, this is one worker of several, all of which must see the
    output folder. Returns False if it was told to stop (Ctrl-C, SIGTERM) before the end.

    Raises
    ------
    UserError
        If the job, its data, its model or its output cannot be used as they are.
    RunError
        If the loss leaves the finite numbers.
    """
    check_packages(job)
    folder = output_folder(job.output)
    rank, ranks = 0, 1
    if dist.is_available() and dist.is_initialized():
        rank, ranks = dist.get_rank(), dist.get_world_size()
    with lock(folder) if rank == 0 else nullcontext():
        return _Training(job, folder, rank, ranks).run()


def check_packages(job: FinetuneJob) -> None:
    """Raise JobError if a package that the training needs is not installed."""
    needed = ["accelerate", *(["peft"] if job.method == "lora" else [])]
    if job.model.quantization != "none":
        needed.append("bitsandbytes")
    for package in needed:
        if find_spec(package) is None:
            extra = "quantization" if package == "bitsandbytes" else "training"
            raise JobError(
                f"pagelake finetune: needs the {package} package; pip install pagelake[{extra}]"
            )


class _Training:
    """One worker's part of a training; the first one reports, measures and saves."""

    def __init__(self, job: FinetuneJob, folder: Path, rank: int, ranks: int) -> None:
        from pipeline.finetune.loop import CHECKPOINTS, last_checkpoint

        self._job, self._folder, self._rank, self._ranks = job, folder, rank, ranks
        self._curve = Curve(folder)
        self._schema = load_schema(job.as_run().schema_ref)
        self._settings = _settings(job)
        self._checkpoint = resolve(self._settings)
        rows, kept = _rows(job)
        # Sets how the steps divide the samples, so it may not change either.
        depends = made_for.dependencies(job, self._schema, self._checkpoint, rows)
        if last_checkpoint(folder / CHECKPOINTS) is not None:
            made_for.check(folder, depends)
        self._wait()
        if rank == 0:
            made_for.write(folder, depends)
        self._whole = self._load()
        teacher = Teacher(
            job, self._schema, family_of(self._checkpoint), self._checkpoint, self._whole
        )
        self._lessons = self._teach(teacher, rows)
        self._kept = self._teach(teacher, kept[: job.eval_documents])
        self._grammars = teacher.writer.grammars

    def run(self) -> bool:
        from pipeline.finetune.loop import Loop
        from pipeline.finetune.measure import Examiner
        from pipeline.finetune.result import save

        job = self._job
        learner = self._learner()
        collator = Collator(self._whole.processor.tokenizer.pad_token_id)
        examiner = Examiner(
            self._kept, self._schema, self._grammars, collator, job.batch, job.max_new_tokens
        )

        def measure(step: int) -> dict[str, float]:
            found = examiner.measure(learner) if self._rank == 0 else {}
            if found:
                self._curve.measured(step, found)
            return found

        with Stopping() as stopping:
            loop = Loop(
                job, learner, Lessons(self._lessons), collator, self._curve, stopping, measure
            )
            finished = loop.run()
            steps = loop.steps
        if self._rank == 0 and finished:
            figures = measure(steps)
            found = save(job, self._schema, self._checkpoint, learner, len(self._lessons), figures)
            self._curve.say(f"saved in {found}")
        self._wait()
        return finished

    def _load(self) -> ImageTextModel:
        cpus, on_gpu = self._job.resources.cpus_per_worker, self._job.resources.gpus_per_worker > 0
        threads = None if cpus is None else max(1, int(cpus))
        placement = Placement("cuda" if on_gpu else "cpu", threads, learns=True)
        model = family_of(self._checkpoint).load(self._checkpoint, self._settings, placement)
        if not isinstance(model, ImageTextModel):
            raise CheckpointError(
                f"model.family: models of family '{self._checkpoint.family}' cannot be fine-tuned"
            )
        return model

    def _learner(self) -> Learner:
        torch.manual_seed(self._job.seed)  # of the adapters' first weights
        weights = self._whole.weights
        if self._job.checkpointing:
            remember_less(weights)
        if self._job.method == "lora":
            learner = Learner(self._whole, adapt(self._job, self._whole))
        else:
            freeze(self._job, self._whole)
            learner = Learner(self._whole, weights)
        learned, total = count(list(learner.parameters()))
        self._say(
            f"{self._checkpoint.name}: {learned:,} of {total:,} numbers learn from "
            f"{len(self._lessons):,} samples; {len(self._kept):,} are kept to measure with"
        )
        return learner

    def _teach(self, teacher: Teacher, rows: Sequence[Row]) -> list[Lesson]:
        """Draw rows, each worker its share of them, and return the lessons of all."""
        pages = self._folder / PAGES
        pages.mkdir(exist_ok=True)
        encoder = family_of(self._checkpoint).encoder(self._checkpoint, self._settings)
        with (
            Studio(self._job.as_run(), encoder, pages, images=True) as showing,
            Studio(self._job.as_run(), encoder, pages, images=False) as silent,
        ):

            def studio(row: Row) -> Studio:
                return showing if shows_images(teacher.template(row)) else silent

            for number, row in enumerate(rows[self._rank :: self._ranks], 1):
                studio(row).draw(row)
                if number % _TOLD == 0:
                    self._say(f"drawn {number * self._ranks:,} of {len(rows):,} samples")
            self._wait()
            return [teacher.lesson(row, studio(row).draw(row)) for row in rows]

    def _say(self, text: str) -> None:
        if self._rank == 0:
            self._curve.say(text)

    def _wait(self) -> None:
        """Wait for the other workers."""
        if self._ranks > 1:
            dist.barrier()


def _settings(job: FinetuneJob) -> Model:
    """Return how to load the model: what is small in a weight's change needs float32 to add up."""
    if job.method == "full" and job.model.dtype == "auto":
        return job.model.model_copy(update={"dtype": "float32"})
    return job.model


def _rows(job: FinetuneJob) -> tuple[list[Row], list[Row]]:
    rows = read_rows(job.data.train)
    if job.data.eval is not None:
        return rows, read_rows(job.data.eval)
    return split(rows, job.data.eval_share, job.seed)
