"""The loop: transformers' Trainer, with checkpoints of what learns, and our own measuring."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed as dist
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from pipeline.errors import RunError
from pipeline.finetune.curve import Curve
from pipeline.finetune.job import FinetuneJob
from pipeline.finetune.learner import Collator, Learner, Lessons
from pipeline.finetune.stopping import Stopping

CHECKPOINTS = "checkpoints"
_STATE = "trainer_state.json"
_LEARNED = "learned.safetensors"
_PATIENCE_S = 4 * 3600
"""How long workers wait for the one that measures."""
_SCHEDULES = {"constant": "constant_with_warmup"}

Measure = Callable[[int], object]
"""Measures the model and writes it down, after so many steps."""


class Loop(Trainer):  # type: ignore[misc]  # typed in part only
    """Trains a learner; what is written down is what learns, and not what is frozen."""

    def __init__(
        self,
        job: FinetuneJob,
        learner: Learner,
        lessons: Lessons,
        collator: Collator,
        curve: Curve,
        stopping: Stopping,
        measure: Measure,
    ) -> None:
        self._job, self._curve, self._lessons = job, curve, len(lessons)
        super().__init__(
            model=learner,
            args=_arguments(job),
            train_dataset=lessons,
            data_collator=collator,
            callbacks=[_Watcher(job, curve, stopping, measure)],
        )
        self.remove_callback(PrinterCallback)

    def run(self) -> bool:
        """Train, from the last checkpoint on if there is one; return False if told to stop before.

        Raises
        ------
        RunError
            If the loss is not finite.
        """
        folder = Path(self.args.output_dir)
        last = last_checkpoint(folder)
        if self.is_world_process_zero():
            self._curve.go_on_from(0 if last is None else _steps(last))
        if last is not None and _steps(last) >= self.steps:
            self._load_from_checkpoint(str(last))  # the trainer would take one step more
            return True
        self.train(resume_from_checkpoint=None if last is None else str(last))
        return bool(self.state.global_step >= self.steps)

    @property
    def steps(self) -> int:
        """Steps in all."""
        if self.args.max_steps > 0:
            return int(self.args.max_steps)
        batches = math.ceil(self._lessons / self._job.batch)
        mine: int = math.ceil(batches / self.args.world_size)
        an_epoch = math.ceil(mine / self._job.accumulate)
        return math.ceil(self._job.epochs * an_epoch)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        del state_dict
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        learned = {
            name: parameter.detach().cpu().contiguous()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        safetensors.torch.save_file(learned, folder / _LEARNED)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        del model
        path = Path(resume_from_checkpoint) / _LEARNED
        learned = safetensors.torch.load_file(path)
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    parameter.copy_(learned[name])


class _Watcher(TrainerCallback):  # type: ignore[misc]  # typed in part only
    """Writes down how steps went, measures, and stops when told to."""

    def __init__(
        self, job: FinetuneJob, curve: Curve, stopping: Stopping, measure: Measure
    ) -> None:
        self._job, self._curve = job, curve
        self._stopping, self._measure = stopping, measure

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        del args, control
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise RunError("the loss is not finite any more; lower learning_rate")
        if state.is_world_process_zero:
            self._curve.step(
                state.global_step,
                state.max_steps,
                {name: logs[name] for name in ("loss", "grad_norm", "learning_rate", "epoch")},
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args
        step, every = state.global_step, self._job.eval_every
        if every is not None and step % every == 0 and step < state.max_steps:
            self._measure(step)
        if self._stopping.asked() and step < state.max_steps:
            control.should_save = control.should_training_stop = True
        if step >= state.max_steps:
            control.should_save = True


def last_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint; remove those that were being written at a death."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if re.fullmatch(r"checkpoint-\d+", path.name) is None:
            continue
        try:  # the file that is written last
            json.loads((path / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        else:
            whole.append(path)
    return max(whole, key=_steps, default=None)


def _steps(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _arguments(job: FinetuneJob) -> TrainingArguments:
    on_gpu = job.resources.gpus_per_worker > 0
    args = TrainingArguments(
        output_dir=str(Path(job.output) / CHECKPOINTS),
        per_device_train_batch_size=job.batch,
        gradient_accumulation_steps=job.accumulate,
        num_train_epochs=job.epochs,
        max_steps=job.steps or -1,
        learning_rate=job.learning_rate,
        lr_scheduler_type=_SCHEDULES.get(job.schedule, job.schedule),
        warmup_steps=job.warm_up,
        weight_decay=job.weight_decay,
        optim="adamw_torch",
        bf16=on_gpu and job.model.dtype != "float32",
        use_cpu=not on_gpu,
        seed=job.seed,
        data_seed=job.seed,
        save_strategy="steps",
        save_steps=job.save_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        log_level="error",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=job.resources.loaders,
        dataloader_pin_memory=False,
        ddp_backend=dist.get_backend() if dist.is_initialized() else None,
        ddp_find_unused_parameters=not job.checkpointing,
        ddp_timeout=_PATIENCE_S,
    )
    if args.n_gpu > 1:
        # Else it would copy the model to all GPUs of the machine, a batch at a time.
        args._n_gpu = 1
    return args
