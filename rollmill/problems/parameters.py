"""Parameters of jobs that read problems and prompt models with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import field_validator

from rollmill.config.parameter import Parameters, parameter
from rollmill.problems.source import FLAGS, Flag, ProblemSource


class ProblemLimits(Parameters):
    """Limits on the number of problems and the share of unusable rows."""

    max_problems: int | None = parameter(
        None,
        "Problems",
        "Max problems",
        "Only the first so many problems.",
        ge=1,
        aliases=("max_data", "max_tasks"),
    )
    max_bad_share: float = parameter(
        0.1,
        "Problems",
        "Largest share of bad rows",
        "Stop when more than this share of the rows is unusable.",
        ge=0,
        le=1,
    )


class ImageParameters(Parameters):
    """Folders in which rows may name image files."""

    image_folders: list[str] = parameter(
        [],
        "Problems",
        "Image folders",
        "Further folders in which rows may name image files; else only in the data's own folder.",
        metavar="DIR",
    )

    @field_validator("image_folders", mode="before")
    @classmethod
    def _one_folder_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class DatasetColumns(Parameters):
    """The data set of the problems, and its columns."""

    dataset: str | None = parameter(
        None,
        "Problems",
        "Data set",
        "Hub id or local directory (either also with :CONFIG), .jsonl/.json/.parquet file, or "
        "reasoning_gym:NAME?size=100&seed=7.",
    )
    dataset_split: str = parameter(
        "train", "Problems", "Split", "Split of a hub or directory data set.", aliases=("split",)
    )
    prompt_field: str | None = parameter(
        None, "Problems", "Prompt field", "Column of the question; found when obvious.", metavar="COLUMN"
    )
    answer_field: str | None = parameter(
        None,
        "Problems",
        "Answer field",
        "Column of the ground truth; dots reach into nested columns.",
        metavar="COLUMN",
    )
    id_field: str | None = parameter(
        None,
        "Problems",
        "Id field",
        "Column of the problems' ids; found when obvious, else the row number.",
        metavar="COLUMN",
    )
    image_field: str = parameter(
        "images", "Problems", "Image field", "Column of the images that go with the question.", metavar="COLUMN"
    )


class DatasetParameters(ProblemLimits, ImageParameters, DatasetColumns):
    """The source of the problems: data set, columns and limits."""

    source_flags: ClassVar[Mapping[Flag, str]] = FLAGS
    """The command's flags by meaning, for messages."""

    @property
    def source(self) -> ProblemSource | None:
        """Return the source of the problems; None where no data set is named."""
        if self.dataset is None:
            return None
        return ProblemSource(
            dataset=self.dataset,
            split=self.dataset_split,
            prompt_field=self.prompt_field,
            answer_field=self.answer_field,
            id_field=self.id_field,
            image_field=self.image_field,
            image_folders=tuple(self.image_folders),
            max_problems=self.max_problems,
            max_bad_share=self.max_bad_share,
            flags=dict(self.source_flags),
        )


class PromptingParameters(Parameters):
    """Prompt template and system prompt."""

    prompt_template: str | None = parameter(
        None,
        "Prompt",
        "Prompt template",
        r"Text, or a file of it, with {prompt} and other {columns}; {{ }} for braces, \n for a line break.",
    )
    system_prompt: str | None = parameter(
        None, "Prompt", "System prompt", r"Text of a system message; \n for a line break."
    )


class FewShotParameters(PromptingParameters):
    """Prompt template, system prompt and few-shot examples."""

    few_shot: str | None = parameter(
        None,
        "Prompt",
        "Few-shot examples",
        "JSON Lines file of examples (prompt, answer) to put before the question.",
        metavar="FILE",
    )
