"""Calls that have come to their end before: the same again needs neither servers nor an orchestrator."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel


def has_finished(directory: Path, parameters: BaseModel) -> bool:
    """Whether the last call for a run directory came to its end and had the same parameters; reads its manifest alone.

    Rollouts may be missing all the same, where they failed and are to be tried again. Calls that copy their results
    elsewhere, or keep a log, are never finished. Raises `InputError` where the manifest cannot be read.
    """
    from rollmill.generation.manifest import read_manifest  # late: a command's help has no manifest

    if any(getattr(parameters, name, None) for name in ("store_block", "reverify", "log_file")):
        return False
    manifest = read_manifest(directory)
    if manifest is None or manifest.ended_at is None:
        return False
    return manifest.parameters == parameters.model_dump(mode="json")
