"""The form that an answer to a reasoning-gym problem must have before the scorer of its data set sees it.

Some scorers hand the answer to `eval` or to sympy's `parse_expr`, which is `eval` after a change of tokens. Of those
each has a grammar here: what is outside it never reaches them. The others get bounds: on the length, on what is nested
and on counts that they would carry out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rollmill.verifiers.answer_grammar import Expressions, expression_fault, literal_fault, nesting_fault
from rollmill.verifiers.answer_tag import shown

LONGEST_ANSWER = 1_000_000
"""Characters, for a scorer whose time is in proportion to them: whole completions are answers where no tag opens."""

_LONGEST_EVALUATED = 10_000
_DEEPEST = 100
_MOST_STEPS = 10_000
_LONGEST_COMPARED = 4_000

_ARITHMETIC = Expressions(
    operators={"^": 1, "+": 2, "-": 2, "*": 3, "/": 3, "//": 3, "%": 3},
    functions=frozenset({"Abs", "abs", "ceiling", "factorial", "floor", "sqrt"}),
    factorials=True,
)
_FOUR_OPERATIONS = {"+": 2, "-": 2, "*": 3, "/": 3}
_FUNCTIONS = frozenset(
    {
        "Abs",
        "abs",
        "acos",
        "acosh",
        "acot",
        "acsc",
        "asec",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "cbrt",
        "cos",
        "cosh",
        "cot",
    }
    | {"coth", "csc", "csch", "exp", "ln", "log", "sec", "sech", "sin", "sinh", "sqrt", "tan", "tanh"}
)
# Constants of integration: one letter, perhaps numbered, or the word. Sympy makes a symbol of each.
_CONSTANT = re.compile(r"[A-Za-z](?:_?[0-9]{1,3})?|[Cc]onst(?:ant)?|pi")

_Fault = Callable[[str, Mapping[str, Any]], str | None]


def evaluates(name: str) -> bool:
    """Return whether the scorer of the data set `name` evaluates answers as code; True for scorers not reviewed."""
    return name in _GRAMMARS or name not in REVIEWED


def answer_fault(name: str, answer: str, entry: Mapping[str, Any]) -> str | None:
    """Return why the scorer of the data set `name` must not be given `answer` to `entry`; None where it may.

    `entry` is what the data set made: its own answer is always right to look at.
    """
    if name == "composite":  # it asks the scorer of the data set that the entry is from
        name = str(entry["metadata"].get("source_dataset"))
    if answer == entry.get("answer"):
        return None
    longest = max(_LONGEST.get(name, LONGEST_ANSWER), 10 * len(str(entry.get("answer"))))
    if len(answer) > longest:
        return f"the answer has {len(answer)} characters, of which {name} reads at most {longest}"
    check = _GRAMMARS.get(name) or _BOUNDS.get(name)
    fault = check(answer, entry) if check else None
    return fault and f"{shown(answer, limit=60)} is no answer that {name} reads: {fault}"


def _literal_or(plain: str) -> _Fault:
    """Return a check for a Python literal, or a text that matches `plain`, which must hold nothing to evaluate."""
    pattern = re.compile(plain, re.ASCII)

    def fault(answer: str, entry: Mapping[str, Any]) -> str | None:
        return None if pattern.fullmatch(answer) else literal_fault(answer)

    return fault


def _arithmetic(answer: str, entry: Mapping[str, Any]) -> str | None:
    return expression_fault(answer, _ARITHMETIC)


def _in_variables(answer: str, entry: Mapping[str, Any]) -> str | None:
    metadata = entry["metadata"]
    variables = {metadata["variable"]} if "variable" in metadata else set(metadata["variables"])
    allowed = Expressions(
        operators=_FOUR_OPERATIONS,
        functions=_FUNCTIONS,
        is_name=lambda name: name in variables or _CONSTANT.fullmatch(name) is not None,
    )
    return expression_fault(answer, allowed)


def _nested(answer: str, entry: Mapping[str, Any]) -> str | None:
    return nesting_fault(answer, _DEEPEST)


def _compared(answer: str, entry: Mapping[str, Any]) -> str | None:
    """Bound the scorer's edit distances: it compares each pair of texts in two trees, as often as they overlap."""
    if fault := _nested(answer, entry):
        return fault
    compared = answer[answer.find("{") : answer.rfind("}") + 1]
    if len(compared) <= max(_LONGEST_COMPARED, 2 * len(str(entry.get("answer")))):
        return None
    try:
        json.loads(compared)
    except ValueError:  # prose about an answer, which is not compared
        return None
    return f"the JSON in it has {len(compared)} characters"


def _fraction(answer: str, entry: Mapping[str, Any]) -> str | None:
    """Bound exponents: the scorer removes commas, then makes a fraction of 1e999999999 with all its digits."""
    large = re.search(r"[eE][-+]?[\d_]{4}", answer.replace(",", ""))
    return f"the exponent at {shown(large.group())} has more than 3 digits" if large else None


def _cube_moves(answer: str, entry: Mapping[str, Any]) -> str | None:
    """Bound repetitions: the scorer writes F3 out as F F F, whatever the number and the text's length before it."""
    moves = (re.fullmatch(r"(\D*)(\d+)", word) for word in answer.split())
    return _carried_out((move[2], len(move[1])) for move in moves if move)


def _car_moves(answer: str, entry: Mapping[str, Any]) -> str | None:
    """Bound steps: the scorer moves by one in each of F+3's three steps, also after it has met a wall."""
    return _carried_out((count, 1) for count in re.findall(r"[A-Z][+-](\d+)", answer))


def _carried_out(counts: Iterable[tuple[str, int]]) -> str | None:
    """Bound the work that an answer requests: pairs of a number of repetitions and the work of each."""
    steps = 0
    for number, each in counts:
        steps += max(1, each) * (int(number) if len(number) < 6 else _MOST_STEPS + 1)
        if steps > _MOST_STEPS:
            return f"it takes more than {_MOST_STEPS} steps"
    return None


_NUMBERS = r"\s*(?:-?[0-9]{1,300}(?:\s+-?[0-9]{1,300})*)?\s*"

_GRAMMARS: dict[str, _Fault] = {
    "binary_matrix": _literal_or(_NUMBERS),
    "countdown": _arithmetic,
    "intermediate_integration": _in_variables,
    "n_queens": _literal_or(r"\s*[Q_](?:\s+[Q_])*\s*"),
    "polynomial_multiplication": _in_variables,
    "puzzle24": _arithmetic,
    "simple_integration": _in_variables,
    "spiral_matrix": _literal_or(_NUMBERS),
    "string_insertion": _literal_or(r"[A-E]+"),
}

_JSON = ["boxnet", "game_of_life", "graph_color", "group_anagrams", "jugs", "knight_swap", "number_sorting"]
_BOUNDS: dict[str, _Fault] = {
    **dict.fromkeys([*_JSON, "palindrome_partitioning", "propositional_logic"], _nested),
    "coin_flip": _fraction,
    "codeio": _compared,
    "rubiks_cube": _cube_moves,
    "rush_hour": _car_moves,
}

_LONGEST: dict[str, int] = {
    **dict.fromkeys(_GRAMMARS, _LONGEST_EVALUATED),
    "complex_arithmetic": 20_000,  # takes a bracket off each end at a time
    "prime_factorization": 20_000,  # multiplies all numbers, whatever their digits
    "quantum_lock": 20_000,  # as many doublings of a number as letters
    "boxnet": 20_000,  # a regular expression with two lazy parts: the square of it
    "propositional_logic": 2_000,  # reads a chain of operators from its end again and again: the square of it
    "rubiks_cube": 20_000,
}

# The data sets whose scorers have been read, those of reasoning-gym 0.1.25: what another release adds counts as one
# that evaluates. Not here: composite, which asks the scorer of another data set.
REVIEWED = frozenset(
    """
    ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation
    binary_matrix bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic codeio
    coin_flip color_cube_rotation complex_arithmetic count_bits count_primes countdown course_schedule
    cryptarithm decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships figlet_font
    fraction_simplification futoshiki game_of_life game_of_life_halting gcd graph_color group_anagrams
    gsm_symbolic intermediate_integration isomorphic_strings jugs kakurasu knight_swap knights_knaves
    largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle
    manipulate_matrix maze mini_sudoku modulo_grid n_queens needle_haystack number_filtering number_format
    number_sequence number_sorting palindrome_generation palindrome_partitioning path_star polynomial_equations
    polynomial_multiplication pool_matrix power_function prime_factorization products propositional_logic
    puzzle24 quantum_lock ransom_note rearc rectangle_count rotate_matrix rotten_oranges rubiks_cube rush_hour
    self_reference sentence_reordering shortest_path simple_equations simple_geometry simple_integration sokoban
    spell_backward spiral_matrix string_insertion string_manipulation string_splitting string_synthesis sudoku
    survo syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal word_sorting
    zebra_puzzles
    """.split()  # noqa: SIM905 - a hundred lines otherwise
)
