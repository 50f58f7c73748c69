"""Trains a LoRA adapter with TRL alone or with rollmill; prints seconds, tokens and peak memory."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.machine import peak_mb

BATCH, ACCUMULATION, RATE, RANK, ALPHA, DROPOUT, LONGEST = 2, 4, 5e-5, 64, 16, 0.05, 2048

Ready = tuple[Callable[[], Any], Callable[[], int]]
"""Training itself, and how many tokens it saw."""


def bare_trl(model: str, rows: str, folder: Path) -> Ready:
    """Prepare a minimal TRL script: `SFTTrainer` and `LoraConfig`, loss on the completions."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder / "bare"), num_train_epochs=1, per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=ACCUMULATION, learning_rate=RATE, lr_scheduler_type="cosine",
            max_length=LONGEST, train_sampling_strategy="group_by_length", activation_checkpointing=False,
            save_strategy="epoch", logging_steps=1, report_to="none", disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(), bf16=torch.cuda.is_available(),
            model_init_kwargs={"dtype": "bfloat16" if torch.cuda.is_available() else "float32"},
        ),
        train_dataset=load_dataset("json", data_files=rows, split="train", cache_dir=str(folder / "cache")),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )  # fmt: skip
    return trainer.train, lambda: sum(map(len, trainer.train_dataset["input_ids"]))


def rollmill_worker(model: str, rows: str, folder: Path) -> Ready:
    """Prepare the training of `run_training`'s worker process, which also writes metrics and full checkpoints."""
    from transformers import AutoTokenizer

    from rollmill.jobs.training.parameters import TrainLora
    from rollmill.jobs.training.trainer import make_trainer
    from rollmill.jobs.training.work import TrainingWork
    from rollmill.jobs.training.worker import prepare

    parameters = TrainLora(
        model_path=model, train_data=rows, output_dir=str(folder / "rollmill"), num_train_epochs=1,
        per_device_train_batch_size=BATCH, gradient_accumulation_steps=ACCUMULATION, learning_rate=RATE,
        lora_r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, max_length=LONGEST, warmup_ratio=0.0,
    )  # fmt: skip
    directory = folder / "rollmill"
    work = TrainingWork(
        stage="train", parameters=parameters, base=model, train=[rows], validation=[], directory=directory
    )
    work.folder.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(model)
    prepared = prepare(work, tokenizer)
    return make_trainer(work, tokenizer).train, lambda: prepared.train.tokens


CONTENDERS = {contender.__name__: contender for contender in (bare_trl, rollmill_worker)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=list(CONTENDERS))
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    train, tokens = CONTENDERS[options.contender](options.model, options.rows, options.folder)
    started = time.perf_counter()
    train()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "tokens": tokens(), "peak_mb": device_mb() or peak_mb()}))


def device_mb() -> float:
    """Return the peak memory of the GPU, in MB; 0 without one."""
    import torch

    return torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else 0.0


if __name__ == "__main__":
    main()
