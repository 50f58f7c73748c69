"""Held-out problems: none of them is among those that are trained on, which is checked."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from rollmill.errors import InputError
from rollmill.problems import ProblemSource, load_problems, read_problems
from rollmill.records import Problem
from rollmill.rejection.parameters import RejectSampling
from rollmill.rollouts.identity import content_key


def check_held_out(train: RejectSampling, held_out: RejectSampling) -> int:
    """How many held-out problems there are.

    Two problems are the same when their questions are, but for white space and capitals, and their images. Raises
    `InputError` where one is on both sides, and as `load_problems` does.
    """
    learnt = {key: problem.instance_id for problem, key in _questions(train.source)}
    count = 0
    shared = []
    for problem, key in _questions(held_out.source):
        count += 1
        if key in learnt:
            shared.append(f"{problem.instance_id} is {learnt[key]} of the training problems")
    if shared:
        more = f", and {len(shared) - 3} more" if len(shared) > 3 else ""
        raise InputError(
            f"{len(shared)} of {count} held-out problems are trained on ({'; '.join(shared[:3])}{more}): "
            f"take them out of {held_out.dataset} or {train.dataset}"
        )
    return count


def _questions(source: ProblemSource) -> Iterator[tuple[Problem, str]]:
    with tempfile.TemporaryDirectory() as folder:
        for problem in read_problems(load_problems(source, Path(folder)).path):
            yield problem, question_key(problem)


def question_key(problem: Problem) -> str:
    """Equal for equal questions."""
    turns = [problem.prompt] if isinstance(problem.prompt, str) else [turn.get("content") for turn in problem.prompt]
    words = [" ".join(turn.casefold().split()) if isinstance(turn, str) else turn for turn in turns]
    return content_key([words, [image.sha256 for image in problem.images]])
