import pytest

from rollmill.errors import RunStoppedError
from rollmill.generation.failures import check_not_all_failed, count_failures, failure_lines, failure_note, remedy
from rollmill.statistics.failures import FailureWords
from tests.generation.run_factory import append, opened


def test_the_words_of_a_journal(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=2) as run:
        append(run.journal, "p0", 0, state="failed:http_400")
        append(run.journal, "p0", 1, state="failed:http_400")
        append(run.journal, "p1", 0, state="failed:timeout")
        append(run.journal, "p1", 1)
        assert count_failures(run) == [FailureWords("http_400", "m", 2), FailureWords("timeout", "m", 1)]
        assert run.journal.counts() == (4, 3, 3)
        check_not_all_failed(run)


def test_a_run_of_failed_rollouts_only_is_an_error_until_one_succeeds(tmp_path):
    with opened(tmp_path, rows=1, num_rollout=2) as run:
        check_not_all_failed(run)
        append(run.journal, "p0", 0, state="failed:http_401")
        append(run.journal, "p0", 1, state="failed:http_401")
        with pytest.raises(
            RunStoppedError, match=r"all 2 rollouts failed: 2 x http_401: m: give the right key .*--retry"
        ):
            check_not_all_failed(run)
        append(run.journal, "p0", 1)
        check_not_all_failed(run)


def test_completions_that_could_not_be_judged(tmp_path):
    with opened(tmp_path, rows=1, num_rollout=1) as run:
        append(run.journal, "p0", 0, state="failed:verifier_raised", completion="4")
        assert run.journal.counts() == (1, 1, 0)
        check_not_all_failed(run, needs_verdicts=False)
        with pytest.raises(RunStoppedError, match=r"all 1 rollouts failed: 1 x verifier_raised: .*--reverify"):
            check_not_all_failed(run)


@pytest.mark.parametrize(
    ("type_", "words", "text"),
    [
        ("http_400", "max_tokens=2048 cannot be greater than max_model_len=512", "give a smaller --max_tokens"),
        ("http_400", "no such field", "change what the server's message names"),
        ("verifier_unavailable", "the judge: http_401: h answers 401: bad key", "JUDGE_API_KEY"),
        ("verifier_unavailable", "the judge: http_503: busy", "wait until the judge"),
        ("http_402", "no credits", "fill it"),
        ("insufficient_quota", "no credits", "fill it"),
        ("http_429", "your quota (insufficient_quota)", "fill it"),
        ("http_429", "slow down", "lower the concurrency"),
        ("overloaded_error", "busy", "lower the concurrency"),
        ("malformed_response", "choices is empty", "see its log"),
        ("http_404", "no model m", "a model name that the server knows"),
        ("connection", "refused", "see the server's log"),
        ("http_503", "busy", "see the server's log"),
        ("http_424", "generation failed", "see the server's log"),
    ],
)
def test_remedy_names_what_to_do(type_, words, text):
    advice = remedy([FailureWords(type_, words, 3)])
    assert text in advice
    assert advice.endswith("then run the same command with --retry failed")


def test_completions_are_kept_while_a_failing_verifier_is_fixed():
    assert remedy([FailureWords("verifier_raised", "x", 3)]) == "fix the verifier, then --reverify"


def test_the_commonest_words_stand_in_a_note():
    failures = [FailureWords(f"http_50{index}", "a\x1b[2J", 10 - index) for index in range(5)]
    assert len(failure_lines(failures)) == 4
    assert failure_lines(failures)[-1] == "13 x others"
    note = failure_note(failures, 50, "episodes")
    assert note.startswith("40 of 50 episodes failed outside the model (10 x http_500: a")
    assert note.isprintable()
    assert failure_note([], 50) is None
