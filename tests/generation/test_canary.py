import pytest

from rollmill.errors import RunStoppedError
from rollmill.generation import canary
from rollmill.records import Problem, Verdict
from tests.generation.run_factory import append, opened, rollout


def problems(count):
    return [Problem(instance_id=f"p{index}", prompt="q") for index in range(count)]


@pytest.mark.parametrize(
    ("count", "indices"),
    [(0, []), (1, [0]), (3, [0, 1, 2]), (8, list(range(8))), (9, [0, 1, 2, 3, 4, 5, 6, 7]), (800, range(0, 800, 100))],
)
def test_the_chosen_are_spread_evenly(count, indices):
    assert [problem.instance_id for problem in canary.choose(iter(problems(count)), count)] == [
        f"p{index}" for index in indices
    ]


def test_the_projection_by_hand(tmp_path):
    with opened(tmp_path, rows=10, num_rollout=5) as run:
        append(run.journal, "p0", 0, latency_s=1.0)
        append(run.journal, "p0", 1, latency_s=3.0, finish_reason="length", error=2.0)
        append(run.journal, "p1", 0, latency_s=2.0, state="unparseable")
        append(run.journal, "p1", 1, state="failed:timeout")
        append(run.journal, "p1", 2, latency_s=1000.0)  # not the canary's
        rollouts = canary.canary_rollouts(run, problems(2))
        assert len(rollouts) == 4
        wide = canary.project(run, rollouts, slots=9)
        narrow = canary.project(run, rollouts, slots=2)
    assert (wide.rollouts, wide.failed, wide.remaining) == (3, 1, 45)
    assert (wide.parse_rate, wide.truncation_rate, wide.success_rate) == (2 / 3, 1 / 3, 1 / 3)
    assert wide.shortest_s == 45 * 2.0 / 9
    assert wide.longest_s == 45 * 2.0 / 3  # three at once is all that the canary has tried
    assert wide.tokens == 45 * 5
    sizes = [len(rollout.model_dump_json()) for rollout in rollouts if rollout.verdict]
    assert wide.disk_bytes == round(45 * sum(sizes) / 3)
    assert (narrow.shortest_s, narrow.longest_s) == (45.0, 45.0)
    assert wide.describe().startswith(
        "canary: 3 rollouts, 67% parseable, 33% truncated, 33% accepted; the other 45 will take 10 s to 30 s, "
        "about 225 tokens and 0.0 MB"
    )


def test_nothing_was_judged(tmp_path):
    with opened(tmp_path) as run:
        assert canary.project(run, [], slots=4) is None
        assert canary.project(run, [rollout(state="failed")], slots=4) is None


def test_a_canary_whose_every_rollout_failed_stops_the_run(tmp_path):
    refused = rollout(state="failed:http_400")
    with pytest.raises(
        RunStoppedError, match=r"all 2 rollouts of the canary failed: 2 x http_400: m: .*--retry failed"
    ):
        canary.check_some_answered([refused, refused], directory=tmp_path)
    canary.check_some_answered([refused, rollout(state="unparseable")], directory=tmp_path)
    canary.check_some_answered([], directory=tmp_path)


def test_nothing_is_left(tmp_path):
    with opened(tmp_path, rows=1, num_rollout=1) as run:
        append(run.journal, "p0", 0)
        projection = canary.project(run, run.journal.group("p0", 1), slots=4)
    assert (projection.remaining, projection.shortest_s, projection.longest_s, projection.tokens) == (0, 0, 0, 0)


@pytest.fixture
def check(tmp_path):
    def check(*rollouts):
        with opened(tmp_path) as run:
            canary.check(canary.project(run, rollouts, slots=4), directory=tmp_path, max_tokens=100)

    return check


CUT, MUTE, FINE, FAILED = (
    rollout(state="unparseable", finish_reason="length"),
    rollout(state="unparseable"),
    rollout(error=3.0),
    rollout(state="failed"),
)


def test_it_stops_with_advice_when_nearly_all_is_cut_off(check, tmp_path):
    with pytest.raises(
        RunStoppedError, match="90% of the canary's completions were cut off at --max_tokens 100"
    ) as caught:
        check(*[CUT] * 9, FINE, *[FAILED] * 50)
    assert "--retry truncated" in str(caught.value)
    assert "--no_canary" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_it_stops_with_advice_when_nearly_nothing_can_be_read(check):
    with pytest.raises(RunStoppedError, match="only 10% of the canary's completions hold an answer") as caught:
        check(*[MUTE] * 9, FINE)
    assert "--prompt_template" in str(caught.value)
    assert "--few_shot" in str(caught.value)


@pytest.mark.parametrize(
    ("reason", "advice"),
    [("reasoning_only", "reasoning parser"), ("refusal", "refuses"), ("content_filter", "filter"), ("no_text", "see")],
)
def test_canary_stops_with_the_reason_for_empty_completions(check, reason, advice):
    verdict = Verdict(verifier="numeric@1", status="unparseable", reason=reason, reward=0.0, success=False)
    empty = MUTE.model_copy(update={"verdict": verdict, "completion": ""})
    with pytest.raises(
        RunStoppedError, match=rf"9 of the canary's 10 completions have no text \({reason}\): .*{advice}"
    ):
        check(*[empty] * 9, FINE)
    check(*[empty] * 8, *[FINE] * 2)


@pytest.mark.parametrize(
    "rollouts",
    [
        [CUT] * 7,
        [MUTE] * 7 + [FAILED] * 9,
        [CUT] * 8 + [FINE] * 2,
        [MUTE] * 8 + [FINE] * 2,
        [FINE] * 16,
    ],
)
def test_it_goes_on(check, rollouts):
    check(*rollouts)
