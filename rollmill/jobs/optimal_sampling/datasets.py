"""Loads data sets of prompts: by columns, detected or named, or by the user's own class."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from rollmill.errors import InputError
from rollmill.files.atomic import atomic_write
from rollmill.files.rows import dump_line
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling
from rollmill.problems import LoadedProblems, ProblemSource, load_problems, read_problems
from rollmill.problems.cells import MISSING
from rollmill.problems.columns import RESPONSE_COLUMNS, first_column, get
from rollmill.problems.loading import HEAD_ROWS
from rollmill.problems.source import FLAGS, Flag
from rollmill.records import Problem
from rollmill.registry import import_path
from rollmill.verifiers.failure import describe

SOURCE_FLAGS: dict[Flag, str] = {name: FLAGS[name] for name in ("dataset", "split", "prompt", "max_bad_share")}
_OWN_PROMPT = "__prompt__"
_METHODS = ("get_prompt", "get_metadata", "__len__")
_ANSWER_KEYS = frozenset(
    {
        *("completion", "trajectory", "reward", "success", "verdict", "error", "evaluation_info", "finish_reason"),
        *("usage", "metadata", "instance_id", "sample_id", "seed"),
    }
)
"""Keys that describe the answer of a record: in the output they are the new answer's, not the data set's."""


class DataSet(Protocol):
    """Protocol of the user's own class; constructed with the data set's name and its split."""

    def get_prompt(self, idx: int) -> Any: ...  # noqa: D102
    def get_metadata(self, idx: int) -> dict[str, Any]: ...  # noqa: D102
    def __len__(self) -> int: ...


def load_data_set(parameters: OptimalSampling, folder: Path, quarantine_path: Path) -> LoadedProblems:
    """Load all rows of the data set; the id of each ends with its number, from 0: see `row_number`.

    Raises `InputError` as `load_problems` does, and for a class that cannot be imported or that fails.
    """
    source = ProblemSource(
        dataset=parameters.dataset,
        split=parameters.dataset_split,
        prompt_field=parameters.prompt_field,
        answer_field="",
        id_field="",
        image_field="",
        max_bad_share=parameters.max_bad_share,
        flags=SOURCE_FLAGS,
    )
    if parameters.own_adapter:
        rows = folder / "rows.jsonl"
        _write_adapter_rows(parameters, rows)
        source = source.model_copy(update={"dataset": str(rows), "prompt_field": _OWN_PROMPT})
    loaded = load_problems(source, folder, quarantine_path=quarantine_path)
    if parameters.start_idx >= loaded.count + loaded.quarantined:
        raise InputError(
            f"--start_idx {parameters.start_idx}: {parameters.dataset} has {loaded.count + loaded.quarantined} rows"
        )
    return loaded


def row_number(instance_id: str) -> int:
    """Return the number of a problem's row in its data set, from 0."""
    return int(instance_id.rpartition("-")[2])


def response_column(parameters: OptimalSampling, problems: Path) -> str | None:
    """Return the column of the data's own answer; None where there is none, or it is the prompt's last message.

    Raises `InputError` where the column that `--response_field` names is missing.
    """
    head = [problem.fields for problem in islice(read_problems(problems), HEAD_ROWS)]
    name = parameters.response_field
    if column := first_column(head, (name,) if name else RESPONSE_COLUMNS):
        return column
    if name:
        columns = ", ".join(dict.fromkeys(key for row in head for key in row)) or "none but the prompt"
        raise InputError(f"{parameters.dataset} has no column {name!r} (--response_field); its columns: {columns}")
    return None


def response_of(problem: Problem, column: str | None) -> str | None:
    """Return the data's own answer to a problem, as text; None where there is none."""
    value = MISSING if column is None else get(problem.fields, column)
    return problem.answer if value is MISSING or value is None else str(value)


def original_fields(problem: Problem, columns: dict[str, str]) -> dict[str, Any]:
    """Return the original fields of a row, without messages.

    `columns` are the columns that were used for `prompt`, and for `answer`, if any. A field that would describe the new
    answer (a completion, a reward) is renamed to `original_...`.
    """
    used = {columns.get("prompt"): problem.prompt, columns.get("answer"): problem.answer}
    kept = {name: value for name, value in used.items() if name and name != _OWN_PROMPT and isinstance(value, str)}
    row = {name: value for name, value in kept.items() if "." not in name} | problem.fields
    return {f"original_{name}" if name in _ANSWER_KEYS else name: value for name, value in row.items()}


def _write_adapter_rows(parameters: OptimalSampling, path: Path) -> None:
    spec = parameters.dataset_adapter
    data: DataSet = _call(spec, _adapter_class(spec), parameters.dataset, parameters.dataset_split)
    with atomic_write(path) as file:
        for index in range(_call(spec, data.__len__)):
            prompt, metadata = _call(spec, data.get_prompt, index), _call(spec, data.get_metadata, index)
            if not isinstance(metadata, dict):
                raise InputError(
                    f"--dataset_adapter {spec}: get_metadata({index}) returned {type(metadata).__name__}: return a dict"
                )
            # The output's `sample_idx` is the row number.
            row = {name: value for name, value in metadata.items() if name != "sample_idx"}
            file.write(_call(spec, dump_line, row | {_OWN_PROMPT: prompt}))


def _adapter_class(spec: str) -> Callable[[str, str], DataSet]:
    """Import the user's class. Raises `InputError` where it cannot be imported, or lacks a method."""
    adapter_class = import_path(f"--dataset_adapter {spec}", spec)
    missing = [method for method in _METHODS if not callable(getattr(adapter_class, method, None))]
    if missing:
        raise InputError(f"--dataset_adapter {spec}: it has no {', '.join(missing)}")
    factory: Callable[[str, str], DataSet] = adapter_class
    return factory


def _call(spec: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the user's code; any exception becomes an `InputError` of one line."""
    try:
        return function(*arguments)
    except Exception as error:
        name = getattr(function, "__name__", "it")
        shown_arguments = ", ".join(repr(argument)[:80] for argument in arguments)
        raise InputError(f"--dataset_adapter {spec}: {name}({shown_arguments}) failed: {describe(error)}") from error
