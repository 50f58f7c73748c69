"""Description of a data set to load: its location, columns and limits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Role = Literal["prompt", "answer", "id", "image"]
"""Roles of columns."""
Flag = Literal["dataset", "split", "prompt", "answer", "id", "image", "image_folders", "max_bad_share"]

FLAGS: dict[Flag, str] = {
    "dataset": "--dataset",
    "split": "--dataset_split",
    "prompt": "--prompt_field",
    "answer": "--answer_field",
    "id": "--id_field",
    "image": "--image_field",
    "image_folders": "--image_folders",
    "max_bad_share": "--max_bad_share",
}
"""The flags of a command that reads any data set."""


class ProblemSource(BaseModel):
    """A data set of problems: its location, columns and limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    dataset: str = Field(min_length=1)
    """One of: a hub id (`org/name`, or `org/name:config`); a local directory (`save_to_disk`, or data files, or a clone
    of a hub data set), or `directory:config`; a
    `.jsonl`, `.json` or `.parquet` file, local or a URL that fsspec knows, plain or `.gz`/`.zst`/`.xz`/`.bz2`;
    `reasoning_gym:NAME?size=100&seed=7&min_digits=1`; or the bare name of a reasoning-gym data set."""
    split: str = "train"
    """Split of a hub data set or a directory. Single files and reasoning-gym have none, and ignore it."""
    prompt_field: str | None = None
    """Column with the question, dotted into nested columns (`extra.question`); None: detected."""
    answer_field: str | None = None
    """Column with the ground truth (`reward_model.ground_truth`); None: detected; empty: the data have none."""
    id_field: str | None = None
    """Column with the instance id; None: detected if its values are unique. Empty or not detected: ids are
    `row-<0-based number>`."""
    image_field: str = "images"
    """Column with the prompt's images. The default `images` means the first of `IMAGE_COLUMNS` that holds any, for each
    row. Empty: no images, and rows with images in their messages are refused."""
    image_folders: tuple[str, ...] = ()
    """Further folders in which rows may name image files: by default only the folder of the data set itself."""
    max_problems: int | None = Field(default=None, ge=1)
    """Number of usable problems after which reading stops."""
    max_bad_share: float = Field(default=0.1, ge=0, le=1)
    """Largest share of unusable rows; the data set is refused above it."""
    flags: dict[Flag, str] = Field(default=FLAGS)
    """Flags of the command that reads the data, for messages; without those that the command does not have."""

    def flag(self, name: Flag) -> str | None:
        """Return the command's flag; None if the command has none."""
        return self.flags.get(name)

    def in_brackets(self, name: Flag) -> str:
        """Return the flag as ` (--flag)` for use within a message; empty if the command has none."""
        return f" ({self.flags[name]})" if name in self.flags else ""

    def named(self, role: Role) -> str | None:
        """Return the column that the user names for a role; None if it is to be detected."""
        names = {"prompt": self.prompt_field, "answer": self.answer_field, "id": self.id_field}
        return names.get(role, self.image_field)
