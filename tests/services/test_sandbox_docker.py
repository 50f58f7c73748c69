"""The sandbox service over a real Docker engine."""

from __future__ import annotations

import subprocess

import pytest

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import SandboxError, SandboxSpec
from tests.sandboxes.engine import import_image, shared_engine
from tests.services.running import Service, in_thread, make_images, marked
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.docker]

IMAGE = "rollmill-test-service:1"


@pytest.fixture(scope="module")
def engine(request, tmp_path_factory):
    address = shared_engine(request.config)
    import_image(address, make_images(tmp_path_factory.mktemp("docker") / "images") / "plain", IMAGE)
    return address


def test_the_service_over_docker(engine):
    arguments = ["--backend", "docker", "--docker_host", engine, "--run_args=--shm-size=16m"]
    command, living = marked()
    with Service("sandbox", *arguments) as service, service.remote(start_config={"run_args": ["--rm"]}) as host:
        assert service.counts()["backend"] == "docker"
        sandbox = host.start(SandboxSpec(image=IMAGE, env={"COLOUR": "blue"}))
        assert sandbox.execute("cat word.txt; echo $COLOUR; echo left > here").output == "hello\nblue\n"
        late = sandbox.execute(f"cat here; {command}", timeout_s=2)
        assert (late.output, late.returncode, late.timed_out) == ("left\n", 124, True)
        assert living() == []
        for config, says in (
            ({"run_args": ["--privileged"]}, "'--privileged' is refused"),
            ({"run_args": ["--shm-size=32m"]}, "'--shm-size=32m' is refused"),
            ({"executable": "podman"}, "this service runs docker"),
        ):
            answer = service.ask("/start", {"config": {"image": IMAGE, **config}})
            assert answer.status_code == 400
            assert says in answer.json()["detail"]
        with pytest.raises(InputError, match="absent"):
            host.start(SandboxSpec(image="absent:1"))
        running = in_thread(lambda: sandbox.execute(command, timeout_s=60))
        wait_until(living)
        sandbox.close()
        assert isinstance(running(), SandboxError)
        host.start(SandboxSpec(image=IMAGE))
        service.end(15)
    listed = subprocess.run(["docker", "-H", engine, "ps", "-aq"], capture_output=True, text=True, check=True)
    assert listed.stdout == ""
    assert living() == []
