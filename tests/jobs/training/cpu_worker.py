"""A training worker that takes the CPU whatever its parameters say of GPUs."""

import sys
from pathlib import Path

from rollmill.jobs.training import worker

if __name__ == "__main__":
    worker.take_device = lambda work: None
    sys.exit(worker.main(Path(sys.argv[1])))
