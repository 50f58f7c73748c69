from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from rollmill.errors import InputError
from rollmill.grading.problems import read_graded_problems

ROW = {"instance_id": "a", "problem_statement": "make it fast", "image_name": "one", "path_in_repo": "a.py"}
REAL = Path(__file__).parents[3] / "shared/data/rocprim_v5.json"


def test_rows_of_a_list_and_of_lines_are_the_same(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "instance_id": "b", "allowed_paths": ["x/*"], "version": 3}]
    document, lines = tmp_path / "whole.json", tmp_path / "lines.jsonl"
    document.write_bytes(orjson.dumps(rows))
    lines.write_bytes(b"\n".join(map(orjson.dumps, rows)))
    problems = read_graded_problems(str(document))
    assert problems == read_graded_problems(str(lines))
    assert list(problems) == ["a", "b"]
    assert problems["a"].allowed == ["a.py"]
    assert problems["b"].allowed == ["x/*"]
    assert problems["b"].model_dump()["version"] == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, {"instance_id": "b", "image_name": "x"}], "row 2, problem_statement: Field required"),
        ([{**ROW, "timeout_s": 0}], "row 1, timeout_s: Input should be greater than 0"),
        ([{**ROW, "allowed_paths": "x"}], "row 1, allowed_paths: Input should be a valid list"),
        ([{**ROW, "instance_id": " "}], "row 1, instance_id: is empty"),
        ([ROW, ROW], "row 2, instance_id: 'a' stands already in row 1"),
        ([ROW, 3], "row 2: expected a JSON object"),
        ([], "holds no problem"),
    ],
)
def test_bad_row_is_reported_in_one_line(tmp_path: Path, rows: list[object], message: str) -> None:
    file = tmp_path / "problems.json"
    file.write_bytes(orjson.dumps(rows))
    with pytest.raises(InputError) as refused:
        read_graded_problems(str(file))
    assert str(refused.value).startswith(f"{file} {message}")
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not here")
def test_a_real_dataset_is_read_as_it_is() -> None:
    problems = read_graded_problems(str(REAL))
    assert len(problems) == 58
    first = next(iter(problems.values()))
    assert first.image_name == "rocm-lib"
    assert first.allowed == ["rocprim/include/rocprim/block/block_adjacent_difference.hpp"]


@pytest.mark.parametrize("field", ["inputs_command", "worker_command"])
def test_commands_for_cases_belong_together(tmp_path: Path, field: str) -> None:
    (tmp_path / "d.json").write_bytes(orjson.dumps([{**ROW, field: "true"}]))
    missing = "worker_command" if field == "inputs_command" else "inputs_command"
    with pytest.raises(InputError, match=f"inputs_command and worker_command belong together: {missing} is missing"):
        read_graded_problems(str(tmp_path / "d.json"))
