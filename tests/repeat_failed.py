"""Run the few tests that failed once more, alone, after all the others.

Browsers, schedules and servers of several tests share a few cores, and a test may fail only because one of them was
late. A test that fails alone as well has failed. One that passes alone is named, so that it can be made steady.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 5
"""Failures that are repeated at most: more are no accident of a busy machine."""


def repeat_failed(root: Path, most: int = MOST) -> int:
    """Return pytest's exit status for the tests under `root` that failed last, run again one after the other.

    More than `most`, or a run that ended without a record of its failures, is a failure as it stands.
    """
    record = root / ".pytest_cache/v/cache/lastfailed"
    failed = sorted(json.loads(record.read_text())) if record.is_file() else []
    if not 0 < len(failed) <= most:
        return 1
    sys.stdout.write(f"\n{len(failed)} failed; once more, alone: {' '.join(failed)}\n")
    sys.stdout.flush()
    status = subprocess.run([sys.executable, "-m", "pytest", "--last-failed", "-rA"], cwd=root).returncode
    if status == 0:
        sys.stdout.write(f"passed alone, failed beside the others (to be made steady): {' '.join(failed)}\n")
    return status


if __name__ == "__main__":
    sys.exit(repeat_failed(Path(__file__).parents[1]))
