"""PEFT's settings of a run's adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollmill.jobs.training.parameters import ALL_LINEAR, TrainLora

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_config(parameters: TrainLora) -> LoraConfig:
    """Return the adapter's settings. Imports PEFT."""
    from peft import LoraConfig

    modules = parameters.target_modules
    return LoraConfig(
        r=parameters.lora_r,
        lora_alpha=parameters.lora_alpha,
        lora_dropout=parameters.lora_dropout,
        target_modules=ALL_LINEAR if modules == [ALL_LINEAR] else modules,
        task_type="CAUSAL_LM",
    )
