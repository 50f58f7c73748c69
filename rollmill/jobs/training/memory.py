"""The most memory that this process has had."""

from __future__ import annotations

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_mb() -> float | None:
    """Of the GPU where torch uses one, else the greatest resident memory; in MB, None where nobody says."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated() / 1e6)
    if not _STATUS.exists():
        return None
    lines = (line.split() for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return next((int(line[1]) * 1024 / 1e6 for line in lines), None)
