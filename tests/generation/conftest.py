import pytest

from tests.generation.run_factory import mounted


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", folder):
        yield folder
