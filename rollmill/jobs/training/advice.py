"""What to do about memory, and about a loss that is no number."""

from __future__ import annotations

from rollmill.jobs.training.parameters import TrainLora

_SHORT = (
    "cuda out of memory",
    "hip out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory, of a GPU or of the machine, did not suffice."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"}:
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in _SHORT)


def less_memory(parameters: TrainLora) -> str:
    """The parameters to change, most helpful first, with values."""
    batch, accumulation = parameters.per_device_train_batch_size, parameters.gradient_accumulation_steps
    ways = []
    if batch > 1:
        half = batch // 2
        ways.append(
            f"lower --per_device_train_batch_size to {half} "
            f"(and raise --gradient_accumulation_steps to {accumulation * batch // half})"
        )
    if not parameters.gradient_checkpointing:
        ways.append("add --gradient_checkpointing")
    ways.append(f"lower --max_length from {parameters.max_length}")
    if parameters.use_lora:
        ways.append(f"lower --lora_r from {parameters.lora_r}")
    else:
        ways.append("train an adapter (--use_lora)")
    return ", or ".join([", ".join(ways[:-1]), ways[-1]]) if len(ways) > 1 else ways[0]


def not_a_number(step: int, parameters: TrainLora, *, what: str) -> str:
    """What to say when training has diverged."""
    return (
        f"the {what} is not a finite number at step {step}: training has diverged; "
        f"lower --learning_rate from {parameters.learning_rate:g}, and give another --output_dir"
    )
