"""Merges an adapter in a process of its own; prints MB of memory with all imported, and at the peak."""

import sys
from pathlib import Path

from transformers.models.llama import modeling_llama

from rollmill.jobs.training import loaded_merge, streamed_merge
from rollmill.jobs.training.merging import write_merged_model

IMPORTED = loaded_merge, modeling_llama, streamed_merge


def memory_mb(field):
    """Return a field of this process's memory, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    before = memory_mb("VmRSS")
    write_merged_model(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    sys.stdout.write(f"{before} {memory_mb('VmHWM')}\n")
