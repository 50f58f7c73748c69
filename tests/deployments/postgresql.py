"""Runs a real PostgreSQL server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rollmill.inference.ports import PortReservation
from rollmill.inference.supervised_process import SupervisedProcess

PASSWORD = "a-password-of-tests"


def binaries() -> Path | None:
    """Return the folder of initdb and postgres, which Debian does not put on the path; None without PostgreSQL."""
    installations = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if installations:
        return installations[-1].parent
    return Path(on_path).parent if on_path else None


@contextmanager
def running_postgresql() -> Iterator[str]:
    """Run a server while the block runs; yield the SQLAlchemy URL of its database `prefect`."""
    where = binaries()
    assert where is not None
    account = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    with TemporaryDirectory(prefix="postgresql-of-a-test-") as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if account:
            owner = pwd.getpwnam(account)
            for path in (folder, folder / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        arguments = [
            "-D",
            f"{folder}/data",
            "-U",
            "rollmill",
            "--auth=scram-sha-256",
            f"--pwfile={folder}/password",
            "-N",
        ]
        subprocess.run([str(where / "initdb"), *arguments], check=True, capture_output=True, user=account, timeout=120)
        port = PortReservation(None)
        port.release()
        options = ["-D", f"{folder}/data", "-p", str(port.port), "-k", str(folder), "-h", "127.0.0.1", "-F"]
        command = [str(where / "postgres"), *options]
        if account:
            command = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups", *command]
        server = SupervisedProcess(command, log=folder / "server.log", grace_s=10.0)
        environment = {"PGPASSWORD": PASSWORD, "PATH": os.environ["PATH"]}
        client = ["-h", "127.0.0.1", "-p", str(port.port), "-U", "rollmill"]
        try:
            deadline = time.monotonic() + 60
            create = [str(where / "createdb"), *client, "prefect"]
            while subprocess.run(create, env=environment, capture_output=True, check=False, timeout=60).returncode:
                assert server.returncode is None, (folder / "server.log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL does not start"
                time.sleep(0.2)
            yield f"postgresql+asyncpg://rollmill:{PASSWORD}@127.0.0.1:{port.port}/prefect"
        finally:
            server.end()
