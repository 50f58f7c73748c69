"""Image names that are refused without a request to the engine."""

from __future__ import annotations

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.docker_engine import DockerEngine

NAMES = [
    "",
    "-v",
    "--privileged",
    "a b",
    "a\0",
    "a\n",
    "a\\b",
    "\u00e9",
    "../a",
    "/a",
    "a" * 256,
    "$(id)",
    "\x1b[31m",
    "\ud800",
]


@pytest.fixture
def engine(tmp_path):
    """Make a docker command that succeeds with everything; return it and its log of arguments."""
    command = tmp_path / "docker"
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls; echo "{{}}"\n')
    command.chmod(0o755)
    return DockerEngine(None, str(command)), tmp_path / "calls"


@pytest.mark.parametrize("name", NAMES)
def test_invalid_image_name_is_refused(engine, name):
    docker, calls = engine
    before = calls.read_text()
    with pytest.raises(InputError, match="no image has that name") as caught:
        docker.provide(name, 1.0)
    assert str(caught.value).isascii()
    assert calls.read_text() == before


@pytest.mark.parametrize("name", ["ubuntu", "ghcr.io/org/image:1.2", "localhost:5000/a/b@sha256:" + "0" * 64, "a" * 64])
def test_image_name_is_checked_at_the_engine(engine, name):
    docker, calls = engine
    docker.provide(name, 1.0)
    assert calls.read_text().endswith(f"-- {name}\n")
