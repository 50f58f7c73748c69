"""Convert puzzles in reasoning-gym's questions to the stored form of the worlds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rollmill.records import Problem

_Read = Callable[[str, str], dict[str, Any]]


def read_gym_problem(problem: Problem) -> tuple[str, dict[str, Any]]:
    """Return world and stored state of a reasoning-gym problem. Raises `ValueError` for one without a world here.

    The board is parsed from the question, so that the entry need not be generated again.
    """
    origin = problem.fields["reasoning_gym"]
    name = origin.get("name") if isinstance(origin, dict) else None
    if name not in _WORLDS:
        raise ValueError(f"reasoning-gym's {name} is no world here: use {', '.join(_WORLDS)}")
    if not isinstance(problem.prompt, str):
        raise ValueError(f"the question of reasoning-gym's {name} is not a text")
    world, read = _WORLDS[name]
    return world, read(problem.prompt, problem.answer or "")


def _read_sokoban(question: str, answer: str) -> dict[str, Any]:
    rows = _board(question, "Here is your puzzle:", "*%@X$+-")
    return {"grid": _translated(rows, "*%@X$+-", "@+$.*#-"), "solution": answer.strip()}


def _read_sudoku(question: str, answer: str) -> dict[str, Any]:
    return {"grid": _translated(_board(question, "udoku puzzle:", "_123456789"), "_", ".")}


def _read_queens(question: str, answer: str) -> dict[str, Any]:
    return {"grid": _translated(_board(question, "attack each other.\n", "_Q"), "_", ".")}


def _read_shortest_path(question: str, answer: str) -> dict[str, Any]:
    return {"grid": _translated(_board(question, "following grid:", "*#OX"), "*#OX", "@G.#")}


def _board(question: str, after: str, symbols: str) -> list[str]:
    """Return the first lines that consist of `symbols` after the last `after`, without their spaces."""
    rows: list[str] = []
    for line in question.rpartition(after)[2].splitlines():
        row = line.replace(" ", "")
        if row and not set(row) - set(symbols):
            rows.append(row)
        elif rows:
            break
    return rows


def _translated(rows: list[str], symbols: str, into: str) -> list[str]:
    return [row.translate(str.maketrans(symbols, into)) for row in rows]


_WORLDS: dict[str, tuple[str, _Read]] = {
    "sokoban": ("sokoban", _read_sokoban),
    "sudoku": ("sudoku", _read_sudoku),
    "mini_sudoku": ("sudoku", _read_sudoku),
    "n_queens": ("eight_queens", _read_queens),
    "shortest_path": ("path_finding", _read_shortest_path),
}
