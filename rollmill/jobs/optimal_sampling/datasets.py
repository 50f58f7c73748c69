"""Data sets of prompts: found columns, named columns, or a class of the user's own."""

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
_ABOUT_AN_ANSWER = frozenset(
    {
        *("completion", "trajectory", "reward", "success", "verdict", "error", "evaluation_info", "finish_reason"),
        *("usage", "metadata", "instance_id", "sample_id", "seed"),
    }
)
"""What these keys say in a record is of the answer in it, and not of the data set's."""


class DataSet(Protocol):
    """What a class of the user's own is; made with the data set's name and its split."""

    def get_prompt(self, idx: int) -> Any: ...  # noqa: D102
    def get_metadata(self, idx: int) -> dict[str, Any]: ...  # noqa: D102
    def __len__(self) -> int: ...


def load_data_set(parameters: OptimalSampling, folder: Path, quarantine_path: Path) -> LoadedProblems:
    """Load all rows of the data set; the id of each ends with its number, counted from 0: see `row_number`.

    Raises `InputError` as `load_problems` does, for a class that cannot be had or fails, and for a column that is not
    there.
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
    """Return the number of a problem's row in its data set, counted from 0."""
    return int(instance_id.rpartition("-")[2])


def response_column(parameters: OptimalSampling, problems: Path) -> str | None:
    """Return the column of the data's own answer; None where there is none, or the prompt's messages end with it.

    Raises `InputError` where a named one is absent.
    """
    head = [problem.fields for problem in islice(read_problems(problems), HEAD_ROWS)]
    named = parameters.response_field
    if column := first_column(head, (named,) if named else RESPONSE_COLUMNS):
        return column
    if named:
        columns = ", ".join(dict.fromkeys(key for row in head for key in row)) or "none but the prompt"
        raise InputError(f"{parameters.dataset} has no column {named!r} (--response_field); its columns: {columns}")
    return None


def response_of(problem: Problem, column: str | None) -> str | None:
    """Return the data's own answer to a problem, as text; None where there is none."""
    value = MISSING if column is None else get(problem.fields, column)
    return problem.answer if value is MISSING or value is None else str(value)


def original_fields(problem: Problem, columns: dict[str, str]) -> dict[str, Any]:
    """Return a row as it was, less messages.

    `columns`: which column was taken for `prompt`, and for `answer`, if any.

    What would say something of the new answer is called `original_...`: a completion, a reward.
    """
    taken = {columns.get("prompt"): problem.prompt, columns.get("answer"): problem.answer}
    kept = {name: value for name, value in taken.items() if name and name != _OWN_PROMPT and isinstance(value, str)}
    row = {name: value for name, value in kept.items() if "." not in name} | problem.fields
    return {f"original_{name}" if name in _ABOUT_AN_ANSWER else name: value for name, value in row.items()}


def _write_adapter_rows(parameters: OptimalSampling, path: Path) -> None:
    spec = parameters.dataset_adapter
    data: DataSet = _called(spec, _adapter_class(spec), parameters.dataset, parameters.dataset_split)
    with atomic_write(path) as file:
        for index in range(_called(spec, data.__len__)):
            prompt, about = _called(spec, data.get_prompt, index), _called(spec, data.get_metadata, index)
            if not isinstance(about, dict):
                raise InputError(
                    f"--dataset_adapter {spec}: get_metadata({index}) gave {type(about).__name__}: give a dict"
                )
            row = {name: value for name, value in about.items() if name != "sample_idx"}
            file.write(_called(spec, dump_line, row | {_OWN_PROMPT: prompt}))


def _adapter_class(spec: str) -> Callable[[str, str], DataSet]:
    """Import the user's class. Raises `InputError` where it cannot be imported, or lacks a method."""
    adapter_class = import_path(f"--dataset_adapter {spec}", spec)
    missing = [method for method in _METHODS if not callable(getattr(adapter_class, method, None))]
    if missing:
        raise InputError(f"--dataset_adapter {spec}: it has no {', '.join(missing)}")
    factory: Callable[[str, str], DataSet] = adapter_class
    return factory


def _called(spec: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the user's code; whatever it raises becomes an error of one line."""
    try:
        return function(*arguments)
    except Exception as error:
        name = getattr(function, "__name__", "it")
        shown_arguments = ", ".join(repr(argument)[:80] for argument in arguments)
        raise InputError(f"--dataset_adapter {spec}: {name}({shown_arguments}) failed: {describe(error)}") from error
