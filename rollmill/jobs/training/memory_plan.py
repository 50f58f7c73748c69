"""Decides once for a run what saves memory on its GPUs, and keeps the decision for every process that continues it.

Imports torch, transformers and PEFT inside of functions.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from typing import Any

from pydantic import BaseModel, ConfigDict

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write_bytes
from rollmill.jobs.training.hardware import has_bf16, on_cpu
from rollmill.jobs.training.lora_settings import lora_config
from rollmill.jobs.training.memory_estimate import GIB, Choice, ModelSize, TrainingSettings, choose_savings
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.prepared import PreparedRows
from rollmill.jobs.training.work import TrainingWork

_log = logging.getLogger(__name__)

BITSANDBYTES = "bitsandbytes"


class MemoryPlan(BaseModel):
    """The decision for a run, `memory.json` in its folder of temporary files."""

    model_config = ConfigDict(frozen=True)

    gradient_checkpointing: bool
    load_in_4bit: bool
    line: str = ""
    """The estimate and the reason, for the user; empty on the CPU, where nothing is decided."""


def read_plan(work: TrainingWork) -> MemoryPlan | None:
    """Return the decision for a run; None where there is none yet."""
    try:
        return MemoryPlan.model_validate_json(work.memory.read_bytes())
    except FileNotFoundError:
        return None


def requested_plan(parameters: TrainLora) -> MemoryPlan:
    """Return what the parameters ask for, and nothing else."""
    return MemoryPlan(
        gradient_checkpointing=bool(parameters.gradient_checkpointing), load_in_4bit=bool(parameters.load_in_4bit)
    )


def planned_parameters(work: TrainingWork) -> TrainLora:
    """Return the parameters with the decision for the run."""
    plan = read_plan(work) or requested_plan(work.parameters)
    decided = {"gradient_checkpointing": plan.gradient_checkpointing, "load_in_4bit": plan.load_in_4bit}
    return work.parameters.model_copy(update=decided)


def check_four_bit(parameters: TrainLora) -> None:
    """Raise `InputError` where 4 bits are asked for, and bitsandbytes is not installed."""
    if parameters.load_in_4bit and not has_bitsandbytes():
        raise InputError(
            f"--load_in_4bit: {BITSANDBYTES} is not installed: `pip install {BITSANDBYTES}` in the environment that "
            "trains, or leave the flag out"
        )


def has_bitsandbytes() -> bool:
    """Return whether bitsandbytes is installed."""
    return importlib.util.find_spec(BITSANDBYTES) is not None


def plan_memory(work: TrainingWork, prepared: PreparedRows) -> MemoryPlan:
    """Decide what saves memory, write the decision, and return it.

    A run that is continued keeps its 4 bits, which train another adapter; checkpointing is decided again, since it
    changes memory and time only. Of several processes, none decides: the one that prepared the rows has. Raises
    `InputError` for 4 bits on the CPU.
    """
    parameters, earlier = work.parameters, read_plan(work)
    if earlier is not None and work.stage == "train" and parameters.processes > 1:
        return earlier
    if earlier is not None:
        parameters = parameters.model_copy(update={"load_in_4bit": earlier.load_in_4bit})
    plan = requested_plan(parameters)
    if on_cpu(parameters):
        if plan.load_in_4bit:
            raise InputError(
                "--load_in_4bit, given or chosen when the run was begun: bitsandbytes trains on NVIDIA GPUs, and this "
                "is the CPU: train on a GPU, or leave the flag out and give another --output_dir"
            )
    elif (size := read_size(work.base, parameters)) is not None:
        plan = decide(size, parameters, longest_row(parameters, prepared), free_memory(parameters.processes))
    atomic_write_bytes(work.memory, plan.model_dump_json().encode())
    return plan


def longest_row(parameters: TrainLora, prepared: PreparedRows) -> int:
    """Return the tokens of the longest row that a batch may have."""
    return parameters.max_length if parameters.packing else min(parameters.max_length, prepared.train.longest)


def decide(size: ModelSize, parameters: TrainLora, tokens: int, available: float) -> MemoryPlan:
    """Return the decision for a model on a GPU.

    Args:
        size: The model, with its adapter.
        parameters: The parameters of the run.
        tokens: Tokens of the longest row.
        available: Free bytes of the GPU.
    """
    settings = TrainingSettings(
        rows=parameters.per_device_train_batch_size,
        tokens=tokens,
        rank=parameters.lora_r,
        has_dropout=parameters.lora_dropout > 0,
        use_lora=parameters.use_lora,
        has_bf16=has_bf16(parameters),
    )
    choice = choose_savings(
        size,
        settings,
        available,
        checkpointing=parameters.gradient_checkpointing,
        four_bit=parameters.load_in_4bit,
        can_quantize=parameters.use_lora and has_bitsandbytes(),
    )
    return MemoryPlan(
        gradient_checkpointing=choice.settings.checkpointing,
        load_in_4bit=choice.settings.four_bit,
        line=_line(choice, parameters, available),
    )


def _line(choice: Choice, parameters: TrainLora, available: float) -> str:
    """Return the estimate, the choice and its reason in one line. Arguments as in `decide`."""
    estimate = choice.estimate
    line = (
        f"memory, estimated: {estimate} = {estimate.total / GIB:.1f} GiB of {available / GIB:.1f} free: {choice.reason}"
    )
    if choice.fits:
        return line
    more = ""
    if parameters.use_lora and not choice.settings.four_bit and parameters.load_in_4bit is None:
        more = f"; with {BITSANDBYTES} installed, the weights could be loaded in 4 bits"
    return f"{line}; it may run out{more}"


def free_memory(devices: int) -> float:
    """Return the free bytes of the GPU, among the first `devices`, that has least. Imports torch."""
    import torch

    return float(min(torch.cuda.mem_get_info(number)[0] for number in range(devices)))


def read_size(base: str, parameters: TrainLora) -> ModelSize | None:
    """Return the sizes of a model and of its adapter, from its configuration: no weights are loaded.

    None where it cannot be built so; then loading reports the reason.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)  # type: ignore[no-untyped-call]
        return measure_size(model, parameters)
    except (OSError, ValueError, AttributeError, NotImplementedError) as error:
        _log.warning("memory is not estimated: %s", str(error).partition("\n")[0][:200])
        return None


def measure_size(model: Any, parameters: TrainLora) -> ModelSize:
    """Return the sizes of a model without weights, on which it puts the run's adapter."""
    import torch
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer

    config = model.config.get_text_config(decoder=True)
    output = model.get_output_embeddings()
    linears = [layer for layer in model.modules() if isinstance(layer, torch.nn.Linear) and layer is not output]
    count = sum(parameter.numel() for parameter in model.parameters())
    quantizable = sum(layer.weight.numel() for layer in linears)
    adapter, adapted = 0, []
    if parameters.use_lora:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT uses a deprecated name of transformers
            wrapped: Any = get_peft_model(model, lora_config(parameters))
        adapter = sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)
        adapted = [layer for layer in wrapped.modules() if isinstance(layer, LoraLayer)]
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelSize(
        parameters=count,
        quantizable=quantizable,
        adapter=adapter,
        adapted_inputs=sum(layer.in_features or 0 for layer in adapted),
        adapted_layers=len(adapted),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=_intermediate(config),
        queries=heads * width,
        keys=(getattr(config, "num_key_value_heads", None) or heads) * width,
        vocabulary=config.vocab_size,
    )


def _intermediate(config: Any) -> int:
    """Return the width of the MLP; of experts, of all that a token uses."""
    experts = getattr(config, "num_experts_per_tok", None)
    width = getattr(config, "moe_intermediate_size", None) if experts else None
    if experts:
        return int(experts * (width or config.intermediate_size))
    return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)


def device_map() -> dict[str, int]:
    """Return the place of a quantized model: whole, on this process's GPU."""
    return {"": int(os.environ.get("LOCAL_RANK", "0"))}
