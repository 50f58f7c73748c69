"""A worker that admits every sample at once, without checking limits: rows of a pair fall out of step.

Its steps are of 32 tokens, which the flags of the pair engine do not allow.
"""

import sys

from rollmill.jobs.optimal_sampling.pair_engine import engine, worker

engine.PairEngine._fits = lambda self, *limits: True
engine.MAX_ATTEMPTS = 1000


class SmallSteps(engine.PairEngine):
    """An engine that reads 32 tokens in a step."""

    def __init__(self, arguments, adapters):
        super().__init__([*arguments, "--max-num-batched-tokens", "32"], adapters)


worker.PairEngine = SmallSteps

if __name__ == "__main__":
    worker.main(sys.argv[1:])
