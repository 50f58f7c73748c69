"""What to load: the parameters that say where problems come from and which columns matter."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ProblemSource(BaseModel):
    """Where problems come from, and how their rows are read."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dataset: str = Field(min_length=1)
    """One of: a hub id (`org/name`, or `org/name:config`); a local directory (`save_to_disk`, or data files); a
    `.jsonl`, `.json` or `.parquet` file, local or a URL that fsspec knows, plain or `.gz`/`.zst`/`.xz`/`.bz2`;
    `reasoning_gym:NAME?size=100&seed=7&min_digits=1`; or the bare name of a reasoning-gym data set."""
    split: str = "train"
    """Split of a hub data set or a directory. Single files and reasoning-gym have none, and ignore it."""
    prompt_field: str | None = None
    """Column with the question, dotted into nested columns (`extra.question`); None: detected."""
    answer_field: str | None = None
    """Column with the ground truth (`reward_model.ground_truth`); None: detected; empty: the data have none."""
    id_field: str | None = None
    """Column with the instance id; None: detected; empty, or where there is none: `row-<0-based number>`."""
    image_field: str = "images"
    """Column with the prompt's images; by default `images`, or else `image`, where there is one. Empty: no images."""
    image_folders: tuple[str, ...] = ()
    """Further folders in which rows may name image files: by default only the folder of the data set itself."""
    max_problems: int | None = Field(default=None, ge=1)
    """Stop after so many usable problems."""
    max_bad_share: float = Field(default=0.1, ge=0, le=1)
    """Refuse the data when more than this share of the rows read cannot be used."""
