"""Merges the adapter into the base model, for servers that are faster without adapters."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from rollmill.jobs.training.stop_tokens import GENERATION_CONFIG
from rollmill.jobs.training.work import TrainingWork

_log = logging.getLogger(__name__)

MERGED = "merged"


def merge(work: TrainingWork) -> None:
    """Write `merged/` into the run's directory, complete or not at all. Imports torch."""
    from transformers import AutoTokenizer

    partial = work.directory / f".{MERGED}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_merged_model(work.base, work.directory, partial)
    AutoTokenizer.from_pretrained(work.directory, trust_remote_code=False).save_pretrained(partial)
    if (work.directory / GENERATION_CONFIG).is_file():  # the base's, with the stop tokens that training added
        shutil.copyfile(work.directory / GENERATION_CONFIG, partial / GENERATION_CONFIG)
    shutil.rmtree(work.directory / MERGED, ignore_errors=True)
    partial.rename(work.directory / MERGED)


def write_merged_model(base: str, adapter: Path, target: Path) -> None:
    """Write configuration and weights of a base model with a LoRA adapter merged into it to an existing folder.

    Each weight is added in float32, and saved in the dtype that it has in the base; weights without an adapter keep
    every bit. Memory holds one weight at a time. Where the base's files do not have the model's own names of weights
    (older formats, models that transformers renames or fuses), the model is loaded in its dtype instead.

    Raises `InputError` for an adapter that cannot be merged, and for a quantized base. Imports torch and PEFT.
    """
    from rollmill.jobs.training.loaded_merge import merge_loaded
    from rollmill.jobs.training.streamed_merge import StreamedMerge

    streamed = StreamedMerge.of(base, adapter)
    if streamed is None:
        _log.info("the files of %s name their weights in another way than the model: it is loaded to be merged", base)
        merge_loaded(base, adapter, target)
    else:
        streamed.write(target)
