"""Generate the built-in problems of the stateful environment."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollmill.environments.stateful.settings import StatefulSettings
from rollmill.environments.stateful.worlds import NAMES, WORLDS
from rollmill.files.atomic import atomic_write
from rollmill.files.rows import dump_line


def make_problems(settings: StatefulSettings) -> Iterator[dict[str, Any]]:
    """Yield `settings.problems` rows: `instance_id`, `prompt`, `world`, `difficulty`, `state`, `optimal_length`.

    Row i depends only on the seed, the world, the difficulty and i.
    """
    for number in range(settings.problems):
        name = NAMES[number % len(NAMES)] if settings.world == "mixed" else settings.world
        identity = f"{name}-{settings.difficulty}-{settings.seed}-{number}"
        world = WORLDS[name].generate(random.Random(identity), settings.difficulty)
        plan = world.plan(world.start)
        assert plan is not None  # `generate` returns solvable puzzles only
        yield {
            "instance_id": identity,
            "prompt": f"{world.rules}\n({world.symbols}.)\nThe goal: {world.goal}\n\n{world.render(world.start)}",
            "world": name,
            "difficulty": settings.difficulty,
            "state": world.dump(world.start),
            "optimal_length": len(plan),
        }


def write_problems(settings: StatefulSettings, path: Path) -> None:
    """Write the problems as JSON Lines, atomically."""
    with atomic_write(path) as file:
        for row in make_problems(settings):
            file.write(dump_line(row))
