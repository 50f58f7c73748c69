from __future__ import annotations

import io
import random

import pytest
from PIL import Image

from rollmill.environments.stateful.path_finding import PathFinding
from rollmill.environments.stateful.pictures import draw
from rollmill.environments.stateful.worlds import NAMES, WORLDS
from tests.environments.stateful.demonstrated import CORRIDOR


def test_a_picture_shows_every_cell():
    world = PathFinding.parse(CORRIDOR)
    image = Image.open(io.BytesIO(draw(world.picture(world.start))))
    assert image.size == (216, 280)

    def middle(row: int, column: int) -> tuple[int, ...]:
        return image.getpixel((28 + 40 * column + 20, 28 + 40 * row + 20))

    white, dark, blue = (255, 255, 255), (61, 61, 61), (31, 95, 209)
    assert [middle(0, column) for column in range(4)] == [blue, white, white, white]
    assert [middle(1, column) for column in range(4)] == [dark, dark, dark, white]
    assert image.getpixel((28 + 40 * 3 + 9, 28 + 20)) == (42, 157, 74)  # the ring of the goal


@pytest.mark.parametrize("name", NAMES)
def test_every_world_is_drawn_the_same_each_time(name):
    world = WORLDS[name].generate(random.Random(1), "easy")
    first = draw(world.picture(world.start))
    assert first.startswith(b"\x89PNG")
    assert first == draw(world.picture(world.start))
    after = world.next_state(world.start, world.plan(world.start)[0])
    assert first != draw(world.picture(after))
