import pytest

from rollmill.generation import progress as module
from rollmill.generation.progress import Progress, RolloutSnapshot, progress_of
from rollmill.generation.tally import RolloutOutcome, Tally
from tests.generation.run_factory import append, opened, rollout


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def outcome(**fields):
    return RolloutOutcome.of_row(rollout(**fields).model_dump(mode="json"))


def test_nothing_is_done_yet(clock):
    snapshot = Progress(total=10, left=10, before=Tally()).snapshot()
    assert snapshot == RolloutSnapshot(0, 10, None, None, None, 0, 0.0, 0.0, None)
    assert snapshot.describe() == "0/10 rollouts, 0 tokens/s, - left"


def test_rates_and_what_is_left(clock):
    progress = Progress(total=100, left=100, before=Tally())
    assert progress.tokens_per_s is None
    for second in range(10):
        clock.now = 1000.5 + second
        progress.observe(outcome(error=float(second % 2)))
    clock.now = 1010.0
    snapshot = progress.snapshot()
    assert (snapshot.done, snapshot.total, snapshot.failed) == (10, 100, 0)
    assert (snapshot.rollouts_per_s, snapshot.tokens_per_s) == (1.0, 5.0)
    assert snapshot.eta_s == 90
    assert (snapshot.success_rate, snapshot.mean_error) == (0.5, 0.5)
    assert snapshot.describe() == "10/100 rollouts, success 50.0%, mean error 0.5, 5 tokens/s, 1 min 30 s left"
    assert progress.tokens_per_s == 50 / 9.5


def test_rates_are_those_of_the_last_minute(clock):
    progress = Progress(total=1000, left=1000, before=Tally())
    for second in range(1, 201):
        clock.now = 1000.0 + second
        for _ in range(1 if second <= 100 else 3):
            progress.observe(outcome())
    assert progress.snapshot().rollouts_per_s == pytest.approx(3, rel=0.02)


def test_failures_count_apart(clock):
    progress = Progress(total=4, left=4, before=Tally())
    for each in (outcome(), outcome(state="unparseable"), outcome(state="failed")):
        progress.observe(each)
    snapshot = progress.snapshot()
    assert (snapshot.success_rate, snapshot.mean_error, snapshot.failed) == (0.5, 0.0, 1)
    assert snapshot.describe().endswith(" left, 1 failed")


def test_q_star_samples_show_the_mean_of_alpha_over_tokens(clock):
    progress = Progress(total=2, left=2, before=Tally())
    for alpha, tokens in ((0.25, 30), (0.75, 10)):
        progress.observe(outcome()._replace(status="ok", error=None, mean_alpha=alpha, completion_tokens=tokens))
    assert progress.snapshot().mean_alpha == pytest.approx(0.375)
    assert "mean alpha 0.375" in progress.snapshot().describe()


def test_earlier_rollouts_count_as_done_but_not_in_the_rate(clock, tmp_path):
    with opened(tmp_path, rows=3, num_rollout=2) as run:
        append(run.journal, "p0", 0)
        append(run.journal, "p0", 1, state="failed")
    with opened(tmp_path, rows=3, num_rollout=2) as run:
        progress = progress_of(run)
        assert progress.snapshot()[:2] == (2, 6)
        clock.now += 2
        append(run.journal, "p1", 0, error=1.0)
        progress.observe(outcome(error=1.0))
        snapshot = progress.snapshot()
    assert snapshot[:6] == (3, 6, 0.5, 0.5, None, 1)
    assert (snapshot.rollouts_per_s, snapshot.eta_s) == (0.5, 6.0)
    assert progress.tally.done == 1


def test_retried_rollouts_do_not_count_as_done(tmp_path):
    with opened(tmp_path) as run:
        append(run.journal, "p0", 0)
        append(run.journal, "p0", 1, state="failed")
    with opened(tmp_path, retry="failed") as run:
        assert progress_of(run).snapshot().done == 1


def test_time_begins_at_start(clock):
    progress = Progress(total=4, left=4, before=Tally())
    clock.now += 100
    progress.start()
    clock.now += 1
    progress.observe(outcome())
    assert progress.snapshot().rollouts_per_s == 1.0
