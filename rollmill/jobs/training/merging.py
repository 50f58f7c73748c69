"""The base model with the adapter merged into it, for servers that are faster without adapters."""

from __future__ import annotations

import shutil

from rollmill.jobs.training.stop_tokens import GENERATION_CONFIG
from rollmill.jobs.training.work import TrainingWork

MERGED = "merged"


def merge(work: TrainingWork) -> None:
    """Write `merged/` into the run's directory, whole or not at all.

    The sum of both is made in float32, and kept in the type that the base has. Imports torch.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    beside = work.directory / f".{MERGED}.part"
    shutil.rmtree(beside, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(work.base, dtype=torch.float32, trust_remote_code=False)
    merged = PeftModel.from_pretrained(model, str(work.directory)).merge_and_unload()
    kept = AutoConfig.from_pretrained(work.base, trust_remote_code=False).dtype
    merged.to(kept if kept is not None else torch.float32).save_pretrained(beside)
    AutoTokenizer.from_pretrained(work.directory, trust_remote_code=False).save_pretrained(beside)
    if (work.directory / GENERATION_CONFIG).is_file():  # the base's, and the ends that training has added
        shutil.copyfile(work.directory / GENERATION_CONFIG, beside / GENERATION_CONFIG)
    shutil.rmtree(work.directory / MERGED, ignore_errors=True)
    beside.rename(work.directory / MERGED)
