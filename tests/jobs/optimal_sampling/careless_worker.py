"""A worker that admits every sample at once, without checking limits: rows of a pair fall out of step."""

import sys

from rollmill.jobs.optimal_sampling.pair_engine import engine
from rollmill.jobs.optimal_sampling.pair_engine.worker import main

engine.PairEngine._fits = lambda self, *limits: True
engine.MAX_ATTEMPTS = 1000

if __name__ == "__main__":
    main(sys.argv[1:])
