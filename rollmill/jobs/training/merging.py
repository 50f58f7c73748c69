"""Merges the adapter into the base model, for servers that are faster without adapters."""

from __future__ import annotations

import shutil

from rollmill.jobs.training.stop_tokens import GENERATION_CONFIG
from rollmill.jobs.training.work import TrainingWork

MERGED = "merged"


def merge(work: TrainingWork) -> None:
    """Write `merged/` into the run's directory, complete or not at all.

    Weights are added in float32, and saved in the dtype of the base. Imports torch.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    partial = work.directory / f".{MERGED}.part"
    shutil.rmtree(partial, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(work.base, dtype=torch.float32, trust_remote_code=False)
    merged = PeftModel.from_pretrained(model, str(work.directory)).merge_and_unload()
    dtype = AutoConfig.from_pretrained(work.base, trust_remote_code=False).dtype
    merged.to(dtype if dtype is not None else torch.float32).save_pretrained(partial)
    AutoTokenizer.from_pretrained(work.directory, trust_remote_code=False).save_pretrained(partial)
    if (work.directory / GENERATION_CONFIG).is_file():  # the base's, with the stop tokens that training added
        shutil.copyfile(work.directory / GENERATION_CONFIG, partial / GENERATION_CONFIG)
    shutil.rmtree(work.directory / MERGED, ignore_errors=True)
    partial.rename(work.directory / MERGED)
