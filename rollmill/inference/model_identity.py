"""Fingerprints of models, which do not depend on paths or names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_CONFIGURATION = (".json", ".jinja", ".model", ".txt")
# Files that trainers and evaluations write beside the weights, and that no server reads.
_NOT_THE_MODEL = ("optimizer", "scheduler", "rng_state", "training_args", "trainer_state", "evaluation.")
_SAMPLES = 64
_SAMPLE_BYTES = 65536


def model_identity(model_path: str) -> str:
    """Return a fingerprint of a local checkpoint; a hub id is returned unchanged.

    The fingerprint is a SHA-256 over names, sizes and content of configuration, tokenizer and weight files. Of each
    large weight file only 64 samples of 64 KiB are read, so that it takes a moment for any size: checkpoints of one
    training differ nearly everywhere.
    """
    folder = Path(model_path)
    if not folder.is_dir():
        return model_path
    return fingerprint(
        path
        for path in sorted(folder.iterdir())
        if path.suffix in _WEIGHTS + _CONFIGURATION and not path.name.startswith((".", *_NOT_THE_MODEL))
    )


def fingerprint(files: Iterable[Path]) -> str:
    """Return `sha256:` and 64 hexadecimal digits over names, sizes and content; large weight files are sampled."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            if path.suffix in _WEIGHTS and size > _SAMPLES * _SAMPLE_BYTES:
                for index in range(_SAMPLES):
                    file.seek(index * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                    digest.update(file.read(_SAMPLE_BYTES))
            else:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"
