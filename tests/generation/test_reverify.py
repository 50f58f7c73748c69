import pytest

from rollmill.generation import reverify as module
from rollmill.generation.reverify import reverify, verify_failed
from rollmill.generation.run import Run
from rollmill.verifiers import VerifierPool
from tests.generation.run_factory import append, identity, opened


@pytest.fixture
def run_of_four(tmp_path):
    """Problems with the answers 0, 1, 2; p0 has three rollouts of four kinds, p1 one."""
    with opened(tmp_path) as run:
        append(run.journal, "p0", 0, completion="<answer>0</answer>", metadata={"attempt": 1, "max_tokens": 100})
        append(run.journal, "p0", 1, completion="<answer>0.25</answer>", state="failed:verifier_died")
        append(run.journal, "p0", 2, completion="none", finish_reason="length")
        append(run.journal, "p1", 0, state="failed:http_400")
    return tmp_path


def again(directory, accept_error=0.5, verifier="numeric"):
    pool = VerifierPool(verifier, accept_error=accept_error)
    same = identity().model_copy(update={"verification": pool.identity})
    with opened(directory, same=same, reverify=True) as run:
        count = reverify(run, pool)
        return count, run.manifest, run.journal.group("p0", 4), run.journal.group("p1", 1)


def test_a_new_journal_is_written_and_the_old_one_is_kept(run_of_four):
    old = (run_of_four / "rollouts" / "0001.jsonl").read_bytes()
    count, manifest, _, _ = again(run_of_four)
    assert count == 3
    assert manifest.journal == "rollouts/0002.jsonl"
    assert (run_of_four / "rollouts" / "0001.jsonl").read_bytes() == old
    assert manifest.identity.verification == {"verifier": "numeric@2", "accept_error": 0.5}
    assert manifest.identity.generation == identity().generation
    assert manifest.identity_key == manifest.identity.key
    with opened(run_of_four, same=manifest.identity) as run:
        assert run.journal.tally.counts() == (4, 2, 1, 1)
        assert run.missing() == 3  # two rollouts a problem, of three problems


def test_verdicts_change_and_nothing_else(run_of_four):
    with opened(run_of_four) as run:
        before = run.journal.group("p0", 3)
    _, _, (right, close, none, missing), (failed,) = again(run_of_four)
    assert (right.success, right.verdict.distance) == (True, 0)
    assert (close.success, close.verdict.distance, close.error) == (True, 0.25, None)
    assert (none.success, none.reward, none.status) == (False, 0, "unparseable")
    assert missing is None
    assert (failed.error.type, failed.success, failed.reward) == ("http_400", None, None)
    kept = {"verdict", "error", "reward", "success"}
    for earlier, later in zip(before, (right, close, none), strict=True):
        assert earlier.model_dump(exclude=kept) == later.model_dump(exclude=kept)


def test_again_and_again(run_of_four):
    again(run_of_four, accept_error=0.5)
    _, manifest, (_, close, *_), _ = again(run_of_four, accept_error=0.1)
    assert manifest.journal == "rollouts/0003.jsonl"
    assert not close.success


def test_a_verifier_that_raises_makes_errors(run_of_four, monkeypatch):
    async def verify(self, problem, completion, **_):
        raise module.VerifierFailed("verifier_raised", "no licence")

    monkeypatch.setattr(VerifierPool, "verify", verify)
    _, _, (right, *_), (failed,) = again(run_of_four)
    assert (right.status, right.error.type, right.error.message) == ("failed", "verifier_raised", "no licence")
    assert (right.verdict, right.reward, right.success) == (None, None, None)
    assert right.completion == "<answer>0</answer>"
    assert failed.error.type == "http_400"


def test_many_rollouts_keep_their_order(tmp_path):
    rows = [{"id": f"p{index}", "prompt": "q", "answer": str(index)} for index in range(40)]
    with opened(tmp_path, rows=rows, num_rollout=5) as run:
        for index in reversed(range(40)):
            for sample in range(5):
                append(run.journal, f"p{index}", sample, completion=f"<answer>{index}</answer>")
    pool = VerifierPool("numeric", accept_error=1.0)
    same = identity().model_copy(update={"verification": pool.identity})
    with opened(tmp_path, rows=rows, num_rollout=5, same=same, reverify=True) as run:
        assert reverify(run, pool) == 200
        assert all(rollout.success for _, group in run.groups() for rollout in group)


class Crash(BaseException):
    pass


@pytest.mark.parametrize("when", ["while writing", "before the manifest"])
def test_a_crash_leaves_the_old_journal_in_force(run_of_four, monkeypatch, when):
    def crash(*_, **__):
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(*((module, "_score", crash) if when == "while writing" else (Run, "switch_journal", crash)))
        with pytest.raises(Crash):
            again(run_of_four)
    written = run_of_four / "rollouts" / "0002.jsonl"
    assert written.exists() == (when == "before the manifest")
    with opened(run_of_four) as run:
        assert run.manifest.journal == "rollouts/0001.jsonl"
        assert run.journal.group("p0", 1)[0].verdict.answer == "1"  # as it was made, not as scored again
    assert again(run_of_four)[1].journal == "rollouts/0002.jsonl"


def test_problems_that_the_verifier_refuses_have_no_verdict(run_of_four):
    pool = VerifierPool("numeric", accept_error=0.5)
    same = identity().model_copy(update={"verification": pool.identity})
    with opened(run_of_four, same=same, reverify=True) as run:
        count = reverify(run, pool, fault=lambda each: "no number" if each.instance_id == "p0" else None)
        rollouts = run.journal.group("p0", 3)
        (failed,) = run.journal.group("p1", 1)
    assert count == 0
    assert {(each.error.type, each.error.message, each.reward) for each in rollouts} == {
        ("problem_refused", "no number", None)
    }
    assert [each.completion for each in rollouts] == ["<answer>0</answer>", "<answer>0.25</answer>", "none"]
    assert failed.error.type == "http_400"


def test_retry_repeats_only_the_verification_that_failed(run_of_four):
    pool = VerifierPool("numeric", accept_error=0.5)
    with opened(run_of_four, retry="failed") as run:
        assert verify_failed(run, pool) == 1
        rollouts = run.journal.group("p0", 3)
        assert run.pending(next(run.problems())) == []
    assert (rollouts[1].success, rollouts[1].completion, rollouts[1].error) == (True, "<answer>0.25</answer>", None)
    with opened(run_of_four, retry="failed") as run:
        assert [problem.instance_id for problem in run.problems() if run.pending(problem)] == ["p1", "p2"]


def test_a_completion_whose_verification_fails_again_is_kept(run_of_four, monkeypatch):
    async def verify(self, problem, completion, **_):
        raise module.VerifierFailed("verifier_unavailable", "the judge is away")

    monkeypatch.setattr(VerifierPool, "verify", verify)
    with opened(run_of_four, retry="failed") as run:
        assert verify_failed(run, VerifierPool("numeric", accept_error=0.5)) == 0
        assert run.journal.group("p0", 3)[1].error.type == "verifier_died"
        assert run.pending(next(run.problems())) == []
