"""PostgreSQL as Prefect's database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deployments.conftest import QUICK, Desk, run_parameters
from tests.deployments.postgresql import PASSWORD, binaries, running_postgresql
from tests.flows.conftest import journal_lines, prepared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.skipif(binaries() is None, reason="PostgreSQL is not installed")
def test_local_deployment_on_postgresql(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk", prepared())
    with running_postgresql() as address:
        desk.environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = address
        try:
            desk.up()
            finished = desk.wait(desk.start(QUICK, **run_parameters(tmp_path)))
            assert finished["state"]["type"] == "COMPLETED", desk.logs()
            assert len(journal_lines(tmp_path / "out")) == 8
            assert not list(desk.folder.rglob("*.db")), "an SQLite database was made beside"
            assert PASSWORD not in desk.logs()
        finally:
            desk.command("down")
        desk.up()  # what was recorded is there again
        assert desk.run(finished["id"])["state"]["type"] == "COMPLETED"
        assert desk.command("down").returncode == 0
