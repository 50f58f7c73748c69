from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation.reader import World
from tests.flows.conftest import prefect_environment, sandboxes, stand_in
from tests.prepared_python import prepared_python
from tests.serving.adapters import make_adapter
from tests.training.made import make_base

MACHINE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
RUNS = ("flows.", "rollmill.", "distributed.cli.")
IMPORTED = """
    flows.agent_rollouts flows.collect_episodes flows.curate flows.improve flows.optimal_sampling
    rollmill.optimal_sampling.decoding rollmill.training.trainer rollmill.training.worker
    rollmill.services.evaluation rollmill.services.sandbox rollmill.verifiers.worker_process
    distributed.cli.dask_scheduler distributed.cli.dask_worker fastapi matplotlib.backends.backend_agg
    PIL.GifImagePlugin PIL.JpegImagePlugin prefect.engine prefect.utilities.visualization prefect_dask reasoning_gym
    transformers.models.llama.modeling_llama
"""
__all__ = ["prefect_environment", "sandboxes", "stand_in"]


def make_terse(folder: Path, seed: int) -> Path:
    """A tiny model whose answers end after about ten tokens."""
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
    """A model, an adapter of it, and another model."""
    folder = tmp_path_factory.mktemp("models")
    make_adapter(folder / "adapter", make_terse(folder / "base", seed=0))
    make_terse(folder / "other", seed=1)
    return folder


@pytest.fixture(scope="module")
def python(stand_in: dict[str, str]) -> Iterator[Path]:
    """Has imported what commands and the processes that they start import."""
    with prepared_python(imported=IMPORTED, runs=RUNS, environment=stand_in | MACHINE) as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, models: Path, stand_in: dict[str, str], python: Path, sandboxes: Path) -> World:
    return World(tmp_path, models, python, stand_in | MACHINE | {"TMPDIR": str(sandboxes)})
