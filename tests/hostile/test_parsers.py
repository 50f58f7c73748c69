"""Parsers of untrusted text take linear time."""

import json
import subprocess
import sys

import pytest

from tests.hostile import parsers

pytestmark = pytest.mark.slow  # about 100 texts of 60,000 characters each


@pytest.fixture(scope="module")
def failed():
    """The parsers that were ended by the kernel, or by an exception that is none of theirs; and what they say."""
    done = subprocess.run([sys.executable, "-m", parsers.__name__], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("name", parsers.PARSERS)
def test_a_hostile_text_is_read_in_bounded_time(failed, name):
    names, words = failed
    assert name not in names, "\n".join(line for line in words.splitlines() if name in line)
