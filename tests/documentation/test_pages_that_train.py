"""The pages that also train: every command runs, in the page's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation.pages import TRAIN, name
from tests.documentation.reader import World, run_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("page", TRAIN, ids=name)
def test_pages_commands_run_and_write_their_files(page: Path, world: World) -> None:
    run_page(page, world)
