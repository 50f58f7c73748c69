"""The parameters of the curation flow, and of each command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from rollmill.config.file_parameters import STORE_BLOCK
from rollmill.config.form import Form
from rollmill.config.names import NewPath
from rollmill.config.parameter import Parameters, parameter, redefine
from rollmill.errors import InputError
from rollmill.exports.output_files import parse_output_name
from rollmill.exports.row_format import Arguments, Format, TrajectoryFormat
from rollmill.exports.splitting import Split
from rollmill.jobs.curation.filter_spec import Filters
from rollmill.problems.parameters import ImageParameters, ProblemLimits

if TYPE_CHECKING:
    from rollmill.corpus.row_reader import FieldNames

Export = Literal["sft", "trajectories", "preferences"]
Dropped = Literal["records", "places"]
"""Form in which dropped rollouts are written: whole records, or only their positions."""


class Reading(Parameters):
    """The inputs, and the names of their fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: list[str] = parameter(
        ..., "Input", "Input", "Files (.json, .jsonl, .parquet; .gz, .zst), patterns, folders, run directories, URLs.",
        metavar="PATH", min_length=1,
    )  # fmt: skip

    max_bad_share: float = redefine(ProblemLimits, "max_bad_share", 0.1, group="Input")
    id_field: str | None = parameter(
        None, "Input", "Id field", "Field of the rows with the id of the problem; dots reach into objects.",
        metavar="FIELD", min_length=1,
    )  # fmt: skip
    reward_field: str | None = parameter(
        None, "Input", "Reward field", "Field that holds the reward, a number or true or false.",
        metavar="FIELD", min_length=1,
    )  # fmt: skip
    messages_field: str | None = parameter(
        None, "Input", "Messages field", "Field that holds the conversation, as a list or JSON text.",
        metavar="FIELD", min_length=1,
    )  # fmt: skip

    @property
    def fields(self) -> FieldNames:
        """Return the names of fields that the user gave."""
        from rollmill.corpus.row_reader import FieldNames  # that room imports Polars

        return FieldNames(self.id_field, self.reward_field, self.messages_field)

    @field_validator("input", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _written_elsewhere(self) -> Self:
        for name in ("output", "html", "flips"):
            path = getattr(self, name, None)
            if path is None:
                continue
            if Path(path).is_dir():
                raise ValueError(f"--{name} {path} is a folder: name a file in it")
            if any(Path(source).resolve() == Path(path).resolve() for source in self.input):
                raise ValueError(f"--{name} {path} is an input: give another name")
        return self


class Showing(ImageParameters):
    """Folders of images that training rows may name."""

    image_folders: list[str] = redefine(ImageParameters, "image_folders", [], group="Input")


class TurnOptions(Parameters):
    """The form of turns in training rows."""

    arguments: Arguments = parameter(
        "object", "Output", "Arguments of tool calls", "As objects, or as JSON text, which DeepSeek's templates want."
    )
    keep_truncated: bool = parameter(
        False,
        "Output",
        "Keep the truncated",
        "Also train on completions that were cut off at the limit on tokens; their rows record it.",
    )


class Splitting(Parameters):
    """The split of problems into train and validation."""

    validation_share: float = parameter(
        0.0,
        "Split",
        "Validation share",
        "Share of the problems, with all their rows, used for validation.",
        ge=0,
        lt=1,
    )
    seed: int = parameter(0, "Split", "Seed", "Selects these problems.", ge=0)

    @property
    def split(self) -> Split | None:
        """Return the split; None without a validation share."""
        return Split(self.validation_share, self.seed) if self.validation_share else None


class Sft(TurnOptions, Showing, Splitting):
    """The form of conversations for supervised fine-tuning."""

    format: Format = parameter("messages", "Output", "Format", "messages, or TRL's prompt and completion.")
    token_ids: bool = parameter(
        False, "Output", "Token ids",
        "Write the recorded tokens into the rows, as input_ids and labels; rollouts without are dropped.",
    )  # fmt: skip


class PairOptions(TurnOptions, Showing):
    """The selection of preference pairs."""

    min_margin: float = parameter(0.0, "Pairs", "Least margin", "Least difference of reward within a pair.", ge=0)
    max_pairs: int = parameter(4, "Pairs", "Most pairs", "Most pairs of one problem.", ge=1)


def _output(description: str, kinds: str) -> Any:
    return parameter(..., "Output", "Output", f"{description} ({kinds}).", metavar="FILE")


_DROPPED = parameter(
    "records",
    "Output",
    "Dropped rollouts",
    "Write dropped rollouts as whole records, or only their positions and reasons.",
)


class Analyze(Reading):
    """Count and describe success, rewards, lengths, problems, duplicates, errors.

    `success` is as recorded, unless the record's own evaluation denies it: a failed build is no success.
    """

    tokenizer: str | None = parameter(
        None, "Input", "Tokenizer", "Count tokens with this tokenizer (directory or hub id); else use recorded counts.",
        metavar="PATH",
    )  # fmt: skip
    json_: bool = parameter(False, "Output", "JSON", "Print JSON.", alias="json")


class Writing(Filters, Reading):
    """The inputs, the filters and the output file."""

    output: NewPath

    @field_validator("output")
    @classmethod
    def _check_output_name(cls, path: str) -> str:
        try:
            parse_output_name(Path(path))
        except InputError as error:
            raise ValueError(str(error)) from error
        return path


class FilterData(Writing):
    """Write the rollouts that meet all conditions to one file, and the others to another, each with its reason."""

    output: NewPath = _output("Where the kept rollouts go; those dropped go beside it", ".json, .jsonl, also .gz, .zst")
    dropped: Dropped = _DROPPED


class ExportSft(Sft, Writing):
    """Write conversations for supervised fine-tuning; failed rollouts never are."""

    output: NewPath = _output("Where the rows go", ".jsonl")


class ExportTrajectory(Writing):
    """Write whole trajectories; failed rollouts never are."""

    output: NewPath = _output("Where the trajectories go", ".json, .jsonl, also .gz, .zst")
    format: TrajectoryFormat = parameter(
        "recorded",
        "Output",
        "Format",
        "As recorded, or as documents of the Agent Trajectory Interchange Format (ATIF).",
    )


class ExportPreferences(Splitting, PairOptions, Writing):
    """Write pairs of a better and a worse rollout of one problem (TRL's DPO format)."""

    output: NewPath = _output("Where the pairs go", ".jsonl")


class ShowExample(Filters, Reading):
    """Show one trajectory in the terminal, or many on a page."""

    index: int = parameter(0, "Which rollouts", "Index", "Which of the rollouts, from 0; negative from the end.")
    instance_id: str | None = parameter(
        None, "Which rollouts", "Problem", "Only rollouts of this problem.", metavar="ID"
    )
    whole: bool = parameter(False, "Output", "Whole", "Leave nothing out of long messages.")
    html: NewPath | None = parameter(
        None, "Output", "Page", "Write a page with search and filters for all of them instead.", metavar="FILE"
    )
    most: int = parameter(1000, "Output", "Most on a page", "Most trajectories on the page.", ge=1)


class Overview(Reading):
    """Draw rewards, problems, lengths, calls, and success over the sample index."""

    output: NewPath | None = parameter(
        None, "Output", "Picture", "The PNG file; else beside the input.", metavar="FILE"
    )


class Compare(Reading):
    """Two or more inputs side by side, as a table and a picture, and each with the first, paired by problem."""

    output: NewPath = parameter("compare.png", "Output", "Picture", "The PNG file.", metavar="FILE")
    flips: NewPath | None = parameter(
        None, "Output", "Flips", "Write each problem's counts in both, and whether it flipped, as JSON Lines.",
        metavar="FILE",
    )  # fmt: skip

    @model_validator(mode="after")
    def _check_several(self) -> Self:
        if len(self.input) < 2:
            raise ValueError("--input: give two or more to compare")
        if self.flips and Path(self.flips).resolve() == Path(self.output).resolve():
            raise ValueError(f"--flips {self.flips} is the picture, too: give another name")
        return self


class Curves(Reading):
    """Print and draw what k rollouts of a problem achieve: pass@k, maj@k, best of k by a score, with 95% intervals."""

    output: NewPath | None = parameter(
        None, "Output", "Picture", "The PNG file; else beside the input.", metavar="FILE"
    )
    json_: bool = parameter(False, "Output", "JSON", "Print JSON, and draw nothing.", alias="json")


class Health(Reading):
    """Report faults: hollow or runaway turns, repeated ids, cut answers, rewards and verdicts that clash.

    For a run, also problems whose verifier refuses the ground truth, or accepts an empty answer.
    """

    json_: bool = parameter(False, "Output", "JSON", "Print JSON.", alias="json")


class QualityReport(Reading):
    """Write one page with the results of analyze and overview."""

    output: NewPath | None = parameter(None, "Output", "Page", "The HTML file; else beside the input.", metavar="FILE")


class Curate(Form, PairOptions, Sft, Filters, Reading):
    """Analyse, filter and export in one go, as a Prefect flow: what the form and deployments start."""

    output_dir: NewPath = parameter(
        "curated", "Output", "Output directory", "Everything is written in here.", metavar="DIR"
    )
    dropped: Dropped = _DROPPED
    export: list[Export] = parameter(["sft"], "Output", "Exports", "What is made of the kept rollouts.")
    no_report: bool = parameter(False, "Output", "No report", "Leave out the pictures and the report.")
    store_block: str | None = STORE_BLOCK


COMMANDS: dict[str, type[BaseModel]] = {
    "analyze": Analyze,
    "filter_data": FilterData,
    "export_sft": ExportSft,
    "export_trajectory": ExportTrajectory,
    "export_preferences": ExportPreferences,
    "show_example": ShowExample,
    "overview": Overview,
    "compare": Compare,
    "curves": Curves,
    "health": Health,
    "quality_report": QualityReport,
}
"""The parameters of every quick command, by its name."""
