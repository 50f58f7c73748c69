import pytest

from tests.services.running import Service, make_images


@pytest.fixture(scope="package")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="package")
def service(images):
    """A service with a token, shared by tests that do not change it."""
    arguments = ["--images", images, "--max_sandboxes", 16, "--output_bytes", 200_000, "--forward_env", "GRANTED"]
    with Service("sandbox", *arguments, token="secret", env={"GRANTED": "given", "HIDDEN": "canary"}) as running:
        yield running


@pytest.fixture(scope="package")
def small_service(images):
    """A service with one slot, short time limits and no token."""
    arguments = ["--max_sandboxes", 1, "--grading_sandboxes", 1, "--queue_s", 2, "--idle_s", 3, "--gone_s", 6]
    with Service("sandbox", "--images", images, *arguments) as running:
        yield running
