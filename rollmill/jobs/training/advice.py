"""Messages for users: what to change where memory runs out, the loss diverges, or a library refuses parameters."""

from __future__ import annotations

from rollmill.jobs.training.parameters import ALL_LINEAR, TrainLora

_OUT_OF_MEMORY = (
    "cuda out of memory",
    "hip out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "cublas_status_alloc_failed",
)
_PACKING_WORDS = ("pack", "padding-free", "padding_free", "position")
_MANY_TEXTS = 2
"""Texts per row above which the user gets a message: all but the last of a row's texts repeat what the last has."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a GPU or the machine is out of memory."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"OutOfMemoryError", "MemoryError"}:
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in str(error).lower() for text in _OUT_OF_MEMORY)


def step_line(parameters: TrainLora) -> str:
    """Return the number of rows of an optimizer step, as a product."""
    batch, accumulation = parameters.per_device_train_batch_size, parameters.gradient_accumulation_steps
    noun, devices = "packs" if parameters.packing else "rows", parameters.processes
    return (
        f"an optimizer step has {batch} {noun} x {accumulation} batches x {devices} "
        f"{'device' if devices == 1 else 'devices'} = {parameters.step_rows} {noun}"
    )


def memory_advice(parameters: TrainLora) -> str:
    """Return the parameters to change for less memory, with values, most effective first."""
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


def refusal_message(error: Exception, parameters: TrainLora) -> str:
    """Return the message where TRL, PEFT or transformers refuse the parameters or the model."""
    reason = " ".join(str(error).split())[:300]
    if parameters.packing and any(
        word in reason.lower() for word in ("pack", "padding-free", "padding_free", "position")
    ):
        advice = "leave out --packing"
    elif parameters.use_lora and "target" in reason.lower():
        advice = f"give --target_modules that the model has, or {ALL_LINEAR}"
    elif parameters.gradient_checkpointing and "checkpointing" in reason.lower():
        advice = "leave out --gradient_checkpointing"
    else:
        advice = "train another --model_path, or with other parameters"
    return f"the model cannot be trained so ({reason}): {advice}"


def packing_refusal(reason: str) -> str:
    """Return the message where rows of one pack would attend to each other."""
    return (
        f"--packing: {reason}, so that the rows of a pack would see each other: leave it out (--group_by_length helps)"
    )


def many_texts(rows: int, texts: int) -> str:
    """Return the message where rows became many more training texts; an empty text where they did not."""
    if texts <= _MANY_TEXTS * rows:
        return ""
    return (
        f"{rows:,} rows became {texts:,} texts, each with the whole conversation before it: the chat template writes "
        "earlier turns differently once others follow (it drops their thoughts); to train on fewer tokens, mark "
        'earlier turns with "weight": 0, or set in chat_template_kwargs the variable that keeps thoughts, '
        "if the template has one"
    )


def divergence_message(step: int, parameters: TrainLora, *, what: str) -> str:
    """Return the message where training has diverged; `what` is the value that is not finite."""
    return (
        f"the {what} is not a finite number at step {step}: training has diverged; "
        f"lower --learning_rate from {parameters.learning_rate:g}, and give another --output_dir"
    )
