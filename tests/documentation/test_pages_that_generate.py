"""The pages on rollouts, samples and what is made of them: every command runs, in the page's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documentation.pages import GENERATE, name
from tests.documentation.reader import World, run_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.mark.parametrize("page", GENERATE, ids=name)
def test_pages_commands_run_and_write_their_files(page: Path, world: World) -> None:
    run_page(page, world)
