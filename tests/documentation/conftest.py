from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation.reader import World
from tests.flows.conftest import MACHINE, end_prepared, prefect_environment, prepared, sandboxes, stand_in
from tests.inference.adapters import make_adapter
from tests.jobs.training.tiny_models import make_base

__all__ = ["end_prepared", "prefect_environment", "sandboxes", "stand_in"]


def make_terse(folder: Path, seed: int) -> Path:
    """Make a tiny model whose answers end after about ten tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(make_base(folder, seed=seed))
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.lm_head.weight[model.config.eos_token_id, 0] = 0.6
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model, an adapter of it, and another model."""
    folder = tmp_path_factory.mktemp("models")
    make_adapter(folder / "adapter", make_terse(folder / "base", seed=0))
    make_terse(folder / "other", seed=1)
    return folder


@pytest.fixture
def world(tmp_path: Path, models: Path, stand_in: dict[str, str], sandboxes: Path) -> World:
    return World(tmp_path, models, prepared(), stand_in | MACHINE | {"TMPDIR": str(sandboxes)})
