from __future__ import annotations

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import Limits
from rollmill.services.protocol import Grants, StartConfig, StartRequest, parse_lifetime


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("2h", 7200), ("30m", 1800), ("1.5d", 129600), ("45", 45), ("45s", 45), (90, 90), (0.5, 0.5)],
)
def test_lifetimes(text, seconds):
    assert parse_lifetime(StartConfig(image="i", container_timeout=text)) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "2w", "inf", "h", "1e3"])
def test_invalid_lifetime_is_refused(text):
    with pytest.raises(InputError, match="container_timeout"):
        parse_lifetime(StartConfig(image="i", container_timeout=text))


def test_limits_are_the_lower_ones_each_by_itself():
    limits = Limits(memory_mb=100, processes=10)
    requested = Limits(memory_mb=50, processes=20)
    spec = Grants(limits=limits).spec(StartRequest(config=StartConfig(image="i"), limits=requested))
    assert (spec.limits.memory_mb, spec.limits.processes) == (50, 10)


@pytest.mark.parametrize("executable", ["podman", "/tmp/evil", "docker --privileged"])
def test_clients_do_not_choose_what_runs_containers(executable):
    docker = Grants(executable="docker")
    with pytest.raises(InputError, match="this service runs docker"):
        docker.spec(StartRequest(config=StartConfig(image="i", executable=executable)))
    docker.spec(StartRequest(config=StartConfig(image="i", executable="docker")))
    Grants().spec(StartRequest(config=StartConfig(image="i", executable="docker")))  # bubblewrap has none


def test_clients_may_ask_for_the_run_arguments_that_all_get():
    granted = Grants(executable="docker", run_args=frozenset(["--shm-size=1g"]))
    granted.spec(StartRequest(config=StartConfig(image="i", run_args=["--rm", "--shm-size=1g"])))
    with pytest.raises(InputError, match="--shm-size=2g"):
        granted.spec(StartRequest(config=StartConfig(image="i", run_args=["--shm-size=2g"])))


def test_given_variable_overrides_a_forwarded_one(monkeypatch):
    monkeypatch.setenv("A", "own")
    granted = Grants(forward_env=frozenset(["A", "UNSET_HERE"]))
    assert granted.environment(["A", "UNSET_HERE"], {}) == {"A": "own"}
    assert granted.environment(["A"], {"A": "given"}) == {"A": "given"}
    with pytest.raises(InputError, match="forward_env 'B'"):
        granted.environment(["B"], {})
