from __future__ import annotations

import pytest

from rollmill.environments.stateful.environment import StatefulEnvironment
from rollmill.environments.stateful.settings import StatefulSettings
from rollmill.environments.stateful.worlds import world_of
from rollmill.problems import ProblemSource, load_problems, read_problems
from rollmill.records import Problem
from tests.environments.stateful.demonstrated import play


def gym_problem(name: str, question: str, answer: str | None = None) -> Problem:
    origin = {"name": name, "config": {"seed": 1}, "index": 0}
    return Problem(instance_id="one", prompt=question, answer=answer, fields={"reasoning_gym": origin})


def test_boards_are_read_from_the_questions():
    sokoban = "* - The player\n@ - A box\n\nHere is your puzzle:\n+ + + + +  \n+ * @ X +  \n+ + + + +  \n\n"
    world = world_of(gym_problem("sokoban", sokoban, "R"))
    assert world.render(world.start) == "#####\n#@$.#\n#####"
    assert world.plan(world.start) == ["push right"]
    path = world_of(gym_problem("shortest_path", "Now, find the path in the following grid:\n* O X\nX O #\n"))
    assert path.render(path.start) == "@.#\n#.G"


def test_unknown_world_is_refused_with_the_known_ones():
    fault = StatefulEnvironment.problem_fault(StatefulSettings(), gym_problem("maze", "Navigate"))
    assert fault == "reasoning-gym's maze is no world here: use sokoban, sudoku, mini_sudoku, n_queens, shortest_path"


@pytest.mark.slow
@pytest.mark.parametrize(
    "spec",
    [
        "sokoban?size=12",
        "sudoku?size=8",
        "mini_sudoku?size=30",
        "n_queens?size=30",
        "shortest_path?size=40&p_blocked=0.2",
    ],
)
def test_the_oracle_solves_reasoning_gyms_problems(spec, tmp_path):
    chosen = StatefulSettings()
    source = ProblemSource(dataset=f"reasoning_gym:{spec}", max_bad_share=0.5)
    loaded = load_problems(
        source, tmp_path, problem_fault=lambda puzzle: StatefulEnvironment.problem_fault(chosen, puzzle)
    )
    assert set(loaded.reasons) <= {"no path leads to the goal"}
    for puzzle in read_problems(loaded.path):
        assert play(puzzle, chosen, "oracle").success is True
