from __future__ import annotations

import functools
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollmill.environments.stateful.blocksworld import Blocks, Blocksworld
from rollmill.environments.stateful.blocksworld_solver import arrange
from rollmill.environments.stateful.eight_queens import EightQueens
from rollmill.environments.stateful.path_finding import PathFinding
from rollmill.environments.stateful.sokoban import Sokoban
from rollmill.environments.stateful.sudoku import Sudoku
from rollmill.environments.stateful.world import IllegalActionError, World
from rollmill.environments.stateful.worlds import NAMES, WORLDS
from tests.environments.stateful.demonstrated import fewest_actions

DIFFICULTIES = ("easy", "medium", "hard")
MOVES = ["up", "down", "left", "right"]
UNIVERSES: dict[str, list[str]] = {
    "path_finding": MOVES,
    "sokoban": [*MOVES, *(f"push {move}" for move in MOVES)],
    "sudoku": [f"r{r}c{c}={d}" for r in range(1, 7) for c in range(1, 7) for d in range(1, 8)]
    + [f"clear r{r}c{c}" for r in range(1, 8) for c in range(1, 8)],
    "eight_queens": [f"{verb} r{r}c{c}" for verb in ("place", "remove") for r in range(1, 10) for c in range(1, 10)],
    "blocksworld": [f"{verb} {a}" for verb in ("pick up", "put down") for a in "ABCDEFG"]
    + [f"stack {a} on {b}" for a in "ABCDEFG" for b in "ABCDEFG"]
    + [f"unstack {a} from {b}" for a in "ABCDEFG" for b in "ABCDEFG"],
}


@functools.cache
def easy(name: str, seed: int) -> World[Any]:
    return WORLDS[name].generate(random.Random(seed), "easy")


def unchanging(name: str, stored: dict[str, Any]) -> Any:
    """Return the properties that no action may change."""
    if name == "blocksworld":
        blocks = "".join(map("".join, stored["stacks"])) + (stored["held"] or "")
        return sorted(blocks), stored["goal"]
    grid = stored["grid"]
    if name == "sudoku":
        return stored.get("givens", grid)
    text = "\n".join(grid)
    if name == "eight_queens":
        return [(at, symbol) for at, symbol in enumerate(text) if symbol == "Q"]
    boxes = text.count("$") + text.count("*")
    walls = [at for at, symbol in enumerate(text) if symbol in "#\n"]
    goals = [at for at, symbol in enumerate(text) if symbol in ("G+" if name == "path_finding" else ".*+")]
    return boxes, walls, goals, text.count("@") + text.count("+")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 5), choices=st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=40))
def test_every_action_sequence_keeps_the_invariants(name, seed, choices):
    world = easy(name, seed)
    state, universe = world.start, UNIVERSES[name]
    kept = unchanging(name, world.dump(state))
    for legally, number in choices:
        legal = world.legal_actions(state)
        action = legal[number % len(legal)] if legally and legal else universe[number % len(universe)]
        if action not in legal:
            with pytest.raises(IllegalActionError, match=r"\w"):
                world.next_state(state, action)
            continue
        after = world.next_state(state, action)
        assert after != state
        state = after
        stored = orjson.loads(orjson.dumps(world.dump(state)))
        assert unchanging(name, stored) == kept
        again = type(world).parse(stored) if name != "sokoban" or world.distance_bound(state) is not None else None
        if again:
            assert again.start == state
            assert again.render(state) == world.render(state)
            assert again.legal_actions(state) == world.legal_actions(state)
            assert again.is_goal(state) == world.is_goal(state)
        assert (world.distance_bound(state) == 0) == world.is_goal(state)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 5), choices=st.lists(st.integers(0, 10**6), max_size=12))
def test_solver_reaches_the_goal_from_every_state(name, seed, choices):
    world = easy(name, seed)
    state = world.start
    for number in choices:
        legal = world.legal_actions(state)
        state = world.next_state(state, legal[number % len(legal)])
    plan = world.plan(state)
    if plan is None:
        assert name == "sokoban"
        return
    distance = world.distance_bound(state)
    assert distance is not None
    assert distance <= len(plan)
    assert name == "sokoban" or distance == len(plan)
    for action in plan:
        assert world.read_action(action) == action
        state = world.next_state(state, action)
    assert world.is_goal(state)


@pytest.mark.parametrize("name", NAMES)
def test_every_legal_action_is_read_in_any_spelling(name):
    world = easy(name, 0)
    for action in world.legal_actions(world.start):
        assert world.read_action(f"  {action.upper()} ".replace(" ", "  ")) == action
    for text in (
        "",
        " ",
        "jump",
        "upp",
        "r0c1=1",
        "r1c1=0",
        "r1c1",
        "place r1",
        "stack A on",
        "stack AB on C",
        "1" * 9999,
    ):
        assert world.read_action(text) is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_same_seed_makes_the_same_puzzle(name, difficulty):
    if (name, difficulty) == ("sokoban", "hard"):
        difficulty = "easy"  # the slow test makes hard ones
    first, again, other = (WORLDS[name].generate(random.Random(seed), difficulty) for seed in ("a", "a", "b"))
    assert first.dump(first.start) == again.dump(again.start)
    assert first.dump(first.start) != other.dump(other.start)
    assert first.plan(first.start) == again.plan(again.start)


@pytest.mark.parametrize("seed", range(25))
def test_paths_are_shortest(seed):
    rng = random.Random(seed)
    while True:
        grid = [["#" if rng.random() < 0.3 else "." for _ in range(5)] for _ in range(4)]
        (a, b), (c, d) = rng.sample([(r, c) for r in range(4) for c in range(5)], 2)
        grid[a][b], grid[c][d] = "@", "G"
        try:
            world = PathFinding.parse({"grid": ["".join(row) for row in grid]})
        except ValueError:
            continue
        break
    assert len(world.plan(world.start)) == fewest_actions(world, world.start)


@pytest.mark.parametrize("seed", range(25))
def test_plans_for_blocks_are_shortest(seed):
    rng = random.Random(seed)

    def stacks() -> Any:
        stacks: list[tuple[str, ...]] = [()] * 4
        for block in rng.sample("ABCDE", 5):
            index = rng.randrange(4)
            stacks[index] = (*stacks[index], block)
        return arrange(stacks)

    world = Blocksworld(Blocks(stacks()), stacks())
    state = world.start
    for _ in range(3):  # with an empty hand, and with a full one
        assert len(world.plan(state)) == fewest_actions(world, state)
        state = world.next_state(state, rng.choice(world.legal_actions(state)))


@pytest.mark.parametrize("seed", range(12))
def test_solutions_of_sokoban_are_shortest(seed):
    rng = random.Random(seed)
    cells = [(r, c) for r in range(1, 5) for c in range(1, 5)]
    while True:
        grid = [["#"] * 6 for _ in range(6)]
        for (r, c), symbol in zip(rng.sample(cells, 16), "@$$..#----------", strict=True):
            grid[r][c] = symbol
        try:
            world = Sokoban.parse({"grid": ["".join(row) for row in grid]})
        except ValueError:
            continue
        plan = world.plan(world.start)
        if plan:
            break
    assert len(plan) == fewest_actions(world, world.start)


@pytest.mark.parametrize("rows", [["....", "...."], ["q...", "..q."], [".Q..", "q..."], ["qqq.", "...."]])
def test_plans_for_queens_are_shortest(rows):
    world = EightQueens.parse({"grid": [*rows, "....", "...."]})
    assert len(world.plan(world.start)) == fewest_actions(world, world.start)


def test_eight_queens_plan_keeps_the_most_queens():
    first, second = ["q.......", ".q......"], ["q.......", ".....q.."]
    for rows, kept in ((first, 1), (second, 2)):
        world = EightQueens.parse({"grid": [*rows, *["........"] * 6]})
        assert world.distance_bound(world.start) == (2 - kept) + (8 - kept)
        assert len([action for action in world.plan(world.start) if action.startswith("remove")]) == 2 - kept


def test_sudoku_plan_clears_wrong_digits():
    givens = ["1234", "34.2", "2.43", "4321"]
    world = Sudoku.parse({"grid": givens})
    assert world.plan(world.start) == ["r2c3=1", "r3c2=1"]
    four = Sudoku.parse({"grid": ["1...", "..13", ".4..", "...2"]})
    cell, action = next((action[:4], action) for action in four.plan(four.start))
    wrong = next(other for other in four.legal_actions(four.start) if other.startswith(cell) and other != action)
    state = four.next_state(four.start, wrong)
    assert four.distance_bound(state) == four.distance_bound(four.start) + 1
    assert four.plan(state)[0] == f"clear {cell}"


@pytest.mark.parametrize(
    ("name", "stored", "fault"),
    [
        ("path_finding", {}, "grid is not a list of rows of text"),
        ("path_finding", {"grid": ["@G", "."]}, "row 2 of grid has 1 cells, the first has 2"),
        ("path_finding", {"grid": ["@Gx"]}, "row 1 of grid has 'x': use # . @ G +"),
        ("path_finding", {"grid": ["@@G"]}, "there must be one cell @, found 2"),
        ("path_finding", {"grid": ["@#G"]}, "no path leads to the goal"),
        ("path_finding", {"grid": ["." * 41]}, "grid must have 1 to 40 rows and columns"),
        ("sokoban", {"grid": ["@$"]}, "there are 1 boxes and 0 goals: there must be as many"),
        ("sokoban", {"grid": ["#####", "#$@.#", "#####"]}, "a box can never reach a goal"),
        (
            "sokoban",
            {"grid": ["#####", "#@$.#", "#####"], "solution": "L"},
            "the stored solution cannot be walked: a wall is there",
        ),
        (
            "sokoban",
            {"grid": ["######", "#-@$.#", "######"], "solution": "L"},
            "the stored solution does not reach the goal",
        ),
        ("sokoban", {"grid": ["#####", "#@$.#", "#####"], "solution": 3}, "solution is not a text of U, D, L and R"),
        ("sudoku", {"grid": ["...."] * 4}, "the sudoku has more than one solution"),
        ("sudoku", {"grid": ["11..", "....", "....", "...."]}, "the sudoku has no solution"),
        ("sudoku", {"grid": ["5...", "....", "....", "...."]}, "grid has the digit 5, more than its side"),
        ("sudoku", {"grid": ["....."] * 5}, "grid is 5 x 5: it must be a square of side 4, 6 or 9"),
        ("eight_queens", {"grid": ["Q.", ".."]}, "grid is 2 x 2: it must be a square of side 4 to 12"),
        ("eight_queens", {"grid": ["QQ..", "....", "....", "...."]}, "the given queens leave no solution"),
        ("eight_queens", {"grid": ["qqqq", "q...", "....", "...."]}, "there are 5 queens: 4 at most"),
        (
            "blocksworld",
            {"stacks": [["A"]], "goal": [["B"]]},
            "the start and the goal do not have the same blocks, each once",
        ),
        ("blocksworld", {"stacks": [[]], "goal": []}, "stacks is not a list of stacks of letters from A to Z"),
        ("blocksworld", {"stacks": [["A"]], "held": 3, "goal": [["A"]]}, "held is neither null nor a letter"),
    ],
)
def test_invalid_puzzle_is_refused(name, stored, fault):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        WORLDS[name].parse(stored)
    assert str(error.value) == fault


def test_push_and_step_are_different_actions():
    world = Sokoban.parse({"grid": ["######", "#@-$.#", "######"]})
    near = world.next_state(world.start, "right")
    with pytest.raises(IllegalActionError, match='a box is there: "push right" would push it'):
        world.next_state(near, "right")
    with pytest.raises(IllegalActionError, match="no box is there"):
        world.next_state(world.start, "push right")
    done = world.next_state(near, "push right")
    assert world.render(done) == "######\n#--@*#\n######"
    assert world.is_goal(done)
    with pytest.raises(IllegalActionError, match="a wall is behind the box"):
        world.next_state(done, "push right")


def test_a_stored_solution_is_the_plan_along_its_way():
    world = Sokoban.parse({"grid": ["######", "#@-$.#", "######"], "solution": "RLRR"})
    assert world.plan(world.start) == ["right", "push right"]  # it came by here again
    assert world.plan(world.next_state(world.start, "right")) == ["push right"]
    assert world.dump(world.start)["solution"] == "RLRR"
    assert "solution" not in world.dump(world.next_state(world.start, "right"))
