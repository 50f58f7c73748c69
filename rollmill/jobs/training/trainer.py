"""TRL's `SFTTrainer` with a resumable row order, complete checkpoints, and metrics written as they come.

Imports torch and TRL: only the worker process imports this module.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

import pyarrow.compute as pc
import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from rollmill.errors import InputError
from rollmill.jobs.training.advice import divergence_message, packing_refusal, refusal_message
from rollmill.jobs.training.checkpoints import (
    TrainingCheckpoint,
    checkpoint_path,
    keep_checkpoints,
    mark_complete,
)
from rollmill.jobs.training.hardware import has_bf16, on_cpu, peak_mb, weights_dtype
from rollmill.jobs.training.lora_settings import lora_config
from rollmill.jobs.training.memory_plan import device_map, planned_parameters
from rollmill.jobs.training.metrics import METRICS, MetricsLine, read_metrics
from rollmill.jobs.training.order import EpochSampler, steps_per_epoch
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.prepared import TRAIN, VALIDATION, rows_file
from rollmill.jobs.training.work import TrainingWork

_PROBE_TOKENS = 8
"""Tokens of each of the two rows with which packing is tested."""


class RowsTrainer(SFTTrainer):
    """Trains on tokenised rows.

    `epoch_steps` are optimizer steps per epoch; other arguments go to `SFTTrainer`.
    """

    def __init__(self, work: TrainingWork, *, epoch_steps: int, **arguments: Any) -> None:
        self._work = work
        self._epoch_steps = epoch_steps
        super().__init__(**arguments)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Do nothing: the run writes its own card when it is finished."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows: Any = self.train_dataset if train_dataset is None else train_dataset
        parameters = self._work.parameters
        lengths = pc.list_value_length(rows.data.column("input_ids")).to_pylist()
        group = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return EpochSampler(
            lengths,
            seed=parameters.seed,
            group=group if parameters.group_by_length else None,
            # Not by `set_epoch`: it does not reach the sampler of a resumed epoch on several devices.
            epoch=lambda: self.state.global_step // self._epoch_steps,
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)  # type: ignore[no-untyped-call]
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            step, best = self.state.global_step, self.state.best_global_step
            is_last = self.control.should_training_stop or step >= self.state.max_steps
            mark_complete(self._work.checkpoints, TrainingCheckpoint(step=step, best_step=best, over=is_last))
            keep_checkpoints(self._work.checkpoints, {step, best or step})


class Milestones(TrainerCallback):
    """Evaluates and saves at the end of each epoch and of the run, saves the best step, and stops early.

    `epoch_steps` are optimizer steps per epoch; `patience` is the number of evaluations without a lower loss after
    which training stops, None for never.
    """

    def __init__(self, *, epoch_steps: int, evaluates: bool, patience: int | None) -> None:
        self._epoch_steps = epoch_steps
        self._evaluates = evaluates
        self._patience = patience

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request an evaluation and a checkpoint where an epoch or the run ends."""
        if state.global_step % self._epoch_steps == 0 or state.global_step >= state.max_steps:
            control.should_evaluate |= self._evaluates
            control.should_save = True

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Request a checkpoint where the loss is the lowest so far, and the end when patience runs out."""
        losses = [entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry]
        since_best = len(losses) - 1 - losses.index(min(losses))
        if since_best == 0:
            control.should_save = True
        if self._patience and since_best >= self._patience:
            control.should_save = control.should_training_stop = True


class Recorder(TrainerCallback):
    """Writes `metrics.jsonl`, and ends a run whose loss is not a finite number."""

    def __init__(self, work: TrainingWork) -> None:
        self._path = work.directory / METRICS
        self._parameters = work.parameters
        self._seconds = max((line.seconds for line in read_metrics(self._path)), default=0.0)
        self._started = self._step_began = time.perf_counter()
        self._tokens = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        self._tokens = state.num_input_tokens_seen

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the step's clock: evaluation and checkpoints, between steps, do not count."""
        self._step_began = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Append one line of metrics. Raises `InputError` where training has diverged.

        Args:
            args: Arguments of the trainer.
            state: Its state, which counts steps and tokens.
            control: Its control, not changed.
            logs: Values by name: of a step `loss`, of an evaluation `eval_loss`.
        """
        logs = logs or {}
        for name, what in (("loss", "loss"), ("grad_norm", "gradient"), ("eval_loss", "loss in evaluation")):
            if not math.isfinite(logs.get(name, 0.0)):
                raise InputError(divergence_message(state.global_step, self._parameters, what=what))
        if not state.is_world_process_zero or not {"loss", "eval_loss"} & logs.keys():
            return
        now = time.perf_counter()
        speed = None
        if "loss" in logs:
            speed = (state.num_input_tokens_seen - self._tokens) / (now - self._step_began)
            self._tokens = state.num_input_tokens_seen
        progress = MetricsLine(
            step=state.global_step,
            steps=state.max_steps,
            epoch=round(state.epoch or 0.0, 4),
            loss=logs.get("loss"),
            eval_loss=logs.get("eval_loss"),
            learning_rate=logs.get("learning_rate"),
            grad_norm=logs.get("grad_norm"),
            tokens=state.num_input_tokens_seen,
            tokens_per_s=speed,
            seconds=self._seconds + now - self._started,
            peak_memory_mb=peak_mb(),
        )
        with self._path.open("ab") as file:
            file.write(progress.line())


def make_trainer(work: TrainingWork, tokenizer: Any) -> RowsTrainer:
    """Return the trainer of a run whose rows are prepared.

    Raises `InputError` where the base model cannot be loaded.
    """
    parameters = planned_parameters(work)
    rows = Dataset.from_file(str(rows_file(work.folder, TRAIN)))
    evaluated = rows_file(work.folder, VALIDATION)
    validation = Dataset.from_file(str(evaluated)) if evaluated.exists() else None
    evaluates = validation is not None and len(validation) > 0
    world = int(os.environ.get("WORLD_SIZE", "1"))
    # torchrun sets WORLD_SIZE; another one (of a batch system, say) would shard the rows by the wrong number.
    if world != parameters.processes:
        raise InputError(f"--num_gpus {parameters.num_gpus}: {world} processes were started")
    epoch_steps = steps_per_epoch(
        len(rows),
        batch_size=parameters.per_device_train_batch_size,
        accumulation=parameters.gradient_accumulation_steps,
        processes=parameters.processes,
    )
    steps = min(epoch_steps * parameters.num_train_epochs, parameters.max_steps or math.inf)
    model = load_base(work.base, parameters)
    if parameters.packing:
        check_packing(model)
    try:
        return RowsTrainer(
            work,
            epoch_steps=epoch_steps,
            model=model,
            args=_arguments(work, parameters, steps=int(steps), evaluates=evaluates),
            train_dataset=rows,
            eval_dataset=validation if evaluates else None,
            processing_class=tokenizer,
            peft_config=lora_config(parameters) if parameters.use_lora else None,
            callbacks=[
                Milestones(epoch_steps=epoch_steps, evaluates=evaluates, patience=parameters.early_stopping_patience),
                Recorder(work),
            ],
        )
    except (ValueError, TypeError, NotImplementedError, ImportError) as error:
        raise InputError(refusal_message(error, parameters)) from error


def check_packing(model: PreTrainedModel) -> None:
    """Check that a row in a pack does not attend to the one before it. Raises `InputError` where it does.

    Compares the logits of a few tokens alone, behind others, and behind others with `position_ids` that begin again
    at 0, which separate them. Models that ignore the positions, or are recurrent, give other logits there than alone.
    """
    ids = torch.arange(_PROBE_TOKENS * 2, device=model.device).remainder(model.config.get_text_config().vocab_size)[
        None
    ]
    positions = torch.arange(_PROBE_TOKENS, device=model.device).repeat(2)[None]
    was_training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            alone, joined, packed = (
                model(use_cache=False, **inputs).logits[0, -_PROBE_TOKENS:].float()
                for inputs in (
                    {"input_ids": ids[:, _PROBE_TOKENS:]},
                    {"input_ids": ids},
                    {"input_ids": ids, "position_ids": positions},
                )
            )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(packing_refusal(f"the model takes no positions ({str(error)[:100]})")) from error
    finally:
        model.train(was_training)
    # Kernels differ by rounding: packed logits have to be nearer to those alone than half of what attention changes.
    if (packed - alone).abs().max() > (joined - alone).abs().max() / 2:
        raise InputError(packing_refusal("the model does not separate rows by their positions"))


def train(work: TrainingWork, tokenizer: Any) -> None:
    """Train to the end, from the checkpoint that the work names, if any."""
    trainer = make_trainer(work, tokenizer)
    resume = checkpoint_path(work.checkpoints, work.resume) if work.resume is not None else None
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)


def load_base(base: str, parameters: TrainLora) -> PreTrainedModel:
    """Return the base model: in bfloat16 under an adapter on a GPU that supports it, else in float32.

    With `load_in_4bit` its linear layers are in 4 bits, on this process's GPU.
    """
    dtype = getattr(torch, weights_dtype(parameters))
    quantized: dict[str, Any] = {}
    if parameters.load_in_4bit:  # as in "QLoRA" (Dettmers et al., 2023)
        settings = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        quantized = {"quantization_config": settings, "device_map": device_map()}
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            base, dtype=dtype, trust_remote_code=False, **quantized
        )
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the model {base}: {error}") from error
    return model


def _arguments(work: TrainingWork, parameters: TrainLora, *, steps: int, evaluates: bool) -> SFTConfig:
    """Return the trainer's arguments.

    Args:
        work: The worker's job.
        parameters: Its parameters, with the decision on what saves memory.
        steps: Optimizer steps of the run.
        evaluates: Whether there is validation data.
    """
    return SFTConfig(
        output_dir=str(work.checkpoints),
        max_steps=steps,
        per_device_train_batch_size=parameters.per_device_train_batch_size,
        per_device_eval_batch_size=parameters.per_device_train_batch_size,
        gradient_accumulation_steps=parameters.gradient_accumulation_steps,
        learning_rate=parameters.learning_rate,
        lr_scheduler_type=parameters.lr_scheduler,
        warmup_steps=int(steps * parameters.warmup_ratio),  # rounded down: the first of them has a rate of 0
        activation_checkpointing=bool(parameters.gradient_checkpointing),
        seed=parameters.seed,
        bf16=has_bf16(parameters),
        use_cpu=on_cpu(parameters),
        max_length=None,  # no row is longer
        padding_free=parameters.packing,  # the rows are packed already
        dataset_kwargs={"skip_prepare_dataset": True},
        logging_steps=1,
        logging_nan_inf_filter=False,
        include_num_input_tokens_seen="all" if parameters.packing else "non_padding",
        save_strategy="steps",
        save_steps=parameters.save_steps or steps,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=parameters.eval_steps or steps,
        metric_for_best_model="eval_loss" if evaluates else None,
        greater_is_better=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
    )
