from __future__ import annotations

import logging

from rollmill.jobs.optimal_sampling.sampler import ShardSamples
from tasks import optimal_sampling
from tasks.optimal_sampling import _say


def test_memory_that_ran_out_is_said_once_for_each_process(monkeypatch, caplog):
    monkeypatch.setattr(optimal_sampling, "get_run_logger", lambda: logging.getLogger("run"))
    seen: dict[int, int] = {}
    for process, load_s, size in [(1, 2.0, 8), (1, None, 4), (2, 3.0, 8), (1, None, 4), (1, None, 2), (2, None, 8)]:
        _say(ShardSamples([], process, load_s, size), seen, 8)
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [
        "memory ran out in process 1: it goes on with 4 samples at once; --batch_size 4 draws the same so",
        "memory ran out in process 1: it goes on with 2 samples at once; --batch_size 2 draws the same so",
    ]
