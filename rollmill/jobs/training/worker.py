"""The training process: `python -m rollmill.jobs.training.worker WORK.json`, started by `run_worker`.

A process of its own, so that all memory is free when it ends; with several GPUs torchrun starts one for each (a rank).
An error that the user can fix is written beside the work file, in one line; others end the process with a traceback.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollmill.errors import InputError, RollmillError
from rollmill.exports.splitting import Split
from rollmill.files.atomic import atomic_write_bytes
from rollmill.inference.tokenizer_hash import tokenizer_hash
from rollmill.jobs.training.advice import is_out_of_memory, memory_advice
from rollmill.jobs.training.hardware import take_device
from rollmill.jobs.training.masks import Masks
from rollmill.jobs.training.memory_plan import plan_memory, planned_parameters
from rollmill.jobs.training.prepared import PreparedRows, prepare_rows, read_prepared
from rollmill.jobs.training.stop_tokens import GENERATION_CONFIG, read_stop_ids, write_generation_config
from rollmill.jobs.training.work import CONFIG, TrainingOutcome, TrainingWork
from rollmill.jobs.training.worker_lock import lock_until_exit

_ROPE_TYPES_WITH_UNSCALED_LENGTH = ("linear", "dynamic", "yarn")
"""RoPE types whose `max_position_embeddings` is the length before scaling; others give the length after it."""


def main(work_file: Path) -> int:
    """Run the stage that a work file describes; return the exit code."""
    work = TrainingWork.model_validate_json(work_file.read_bytes())
    outcome = TrainingOutcome()
    is_rank_zero = os.environ.get("RANK", "0") == "0"
    if is_rank_zero:  # the lock is of the whole run, and torchrun ends all ranks together
        lock_until_exit(work.lock)
    # Deprecations of libraries tell the user of a run nothing; the log shall show this run's own messages.
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    try:
        run_stage(work)
    except RollmillError as error:
        outcome = TrainingOutcome(error=str(error))
    except pickle.UnpicklingError as error:  # torch loads with `weights_only`: code in a file is refused
        message = " ".join(str(error).split())[:200]
        outcome = TrainingOutcome(
            error=f"a file of the model {work.base} or of {work.checkpoints} contains pickled objects other than "
            f"tensors, and is not read ({message}): remove it if it is not yours"
        )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.print_exc()
        outcome = TrainingOutcome(error=f"memory ran out: {memory_advice(planned_parameters(work))}")
    # Any rank may fail. Where several do, the last one's error counts: nearly always all have the same one.
    if outcome.error or is_rank_zero:
        atomic_write_bytes(work.outcome, outcome.model_dump_json().encode())
    return 1 if outcome.error else 0


def run_stage(work: TrainingWork) -> None:
    """Run one stage: `prepare`, `train` (which prepares if needed) or `merge`.

    Raises `RollmillError` for what the user can fix.
    """
    if work.stage == "merge":
        from rollmill.jobs.training.merging import merge

        merge(work)
        return
    take_device(work)
    tokenizer = _tokenizer(work.base)
    prepared = prepare(work, tokenizer)
    plan_memory(work, prepared)
    if work.stage == "train":
        from rollmill.jobs.training.trainer import train

        train(work, tokenizer)


def prepare(work: TrainingWork, tokenizer: Any) -> PreparedRows:
    """Tokenise the rows, unless an earlier process did: with several ranks, stage `prepare` has run first, in one."""
    prepared = read_prepared(work.folder)
    if prepared is not None:
        return prepared
    parameters = work.parameters
    share = parameters.validation_share
    config, generation_config = _base_file(work.base, CONFIG), _base_file(work.base, GENERATION_CONFIG)
    if config:
        shutil.copyfile(config, work.folder / CONFIG)
    stop_ids = read_stop_ids(generation_config, config)
    stops = [str(token) for token in tokenizer.convert_ids_to_tokens(stop_ids) if token is not None]

    def add_stops(added: Sequence[str]) -> None:
        # `prepare_rows` calls it with the end-of-turn tokens that the rows teach and the base does not stop at.
        ids = [*stop_ids, *tokenizer.convert_tokens_to_ids(list(added))]
        write_generation_config(work.folder / GENERATION_CONFIG, generation_config, ids)

    return prepare_rows(
        work.folder,
        Masks(tokenizer, work.base, stops),
        work.train,
        work.validation,
        max_length=parameters.max_length,
        model_length=model_length(work.base),
        split=Split(share, parameters.seed) if share else None,
        packing=parameters.packing,
        allow_no_end=parameters.allow_no_end,
        add_stops=add_stops,
        tokenizer_hash=tokenizer_hash(work.base),
    )


def model_length(base: str) -> int | None:
    """Return the context length of a model in tokens, RoPE scaling included; None where its config does not have it."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False).get_text_config()
    except (OSError, ValueError):  # loading the model reports it
        return None
    max_positions = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    if isinstance(max_positions, int) and rope.get("rope_type") in _ROPE_TYPES_WITH_UNSCALED_LENGTH:
        return int(rope.get("factor", 1.0) * (rope.get("original_max_position_embeddings") or max_positions))
    return max_positions if isinstance(max_positions, int) else None


def _tokenizer(base: str) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except Exception as error:  # the hub, files and tokenizers raise types of their own
        raise InputError(
            f"cannot load the tokenizer of {base}, tried as a directory and as a model of the Hugging Face hub: {error}"
        ) from error
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise InputError(f"the tokenizer of {base} has neither a padding nor an end token")
    return tokenizer


def _base_file(base: str, name: str) -> str | None:
    """Return the path of a file of the base model, downloaded from the hub if need be; None where it has none."""
    from transformers.utils.hub import cached_file

    try:
        path: str | None = cached_file(base, name)
    except OSError:  # also where the hub cannot be reached: loading the model then fails, and reports it
        return None
    return path


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
