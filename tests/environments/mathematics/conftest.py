import pytest

from rollmill.environments.python_runs import bubblewrap_python


@pytest.fixture(scope="session")
def python():
    with bubblewrap_python(timeout_s=4.0) as runner:
        yield runner
