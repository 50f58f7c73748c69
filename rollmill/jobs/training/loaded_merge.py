"""Merges an adapter into its base model in memory, in the base's dtype. Imports torch, transformers and PEFT."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM

from rollmill.errors import InputError


def merge_loaded(base: str, adapter: Path, target: Path) -> None:
    """Write the merged model to a folder. Memory holds the model once, and one layer in float32.

    Raises `InputError` where the base cannot be loaded, or the adapter cannot be merged into it.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype="auto", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the model {base}: {error}") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a deprecated name of transformers
        adapted = PeftModel.from_pretrained(model, str(adapter))
    _untie_adapted(adapted, model)
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            _merge_layer(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT warns of layers that are merged already
        merged: Any = adapted.merge_and_unload()
    merged.save_pretrained(target)


def _merge_layer(module: Any) -> None:
    """Merge one layer in float32, so that the sum is rounded once."""
    plain = module.get_base_layer()
    dtypes = {name: parameter.dtype for name, parameter in plain.named_parameters()}
    plain.to(torch.float32)
    module.merge()
    for name, parameter in plain.named_parameters():
        parameter.data = parameter.data.to(dtypes[name])


def _untie_adapted(adapted: Any, model: Any) -> None:
    """Give the output layer weights of its own where an adapter changes the embeddings that it shares."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None or not isinstance(inputs, LoraLayer) or isinstance(outputs, LoraLayer):
        return
    plain: Any = inputs.base_layer
    if outputs.weight is plain.weight:
        outputs.weight = torch.nn.Parameter(outputs.weight.detach().clone(), requires_grad=False)
        for config in {id(item): item for item in (model.config, model.config.get_text_config())}.values():
            config.tie_word_embeddings = False
