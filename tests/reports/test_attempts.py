"""Rollouts as attempts of sampling curves."""

import json
from array import array

import pytest

from rollmill.corpus.corpus import read_corpus
from rollmill.generation.token_file import RolloutTokens, TokenFile
from rollmill.inference.sampled_tokens import SampledTokens
from rollmill.records import TokenLocation
from rollmill.reports.attempts import LogprobReader, attempts_of, corpus_curves, vote
from rollmill.statistics.sampling_curves import ANY_RIGHT, LIKELIEST, MAJORITY
from tests.jobs.rejection_sampling.rollout_rows import group


def test_votes_of_right_and_wrong_answers():
    assert vote("1,250", 0.0, right=True) == vote("1250.0", 0.0, right=True)
    assert vote("1,300", 50.0, right=False) == vote("$1300$", 50.0, right=False)
    assert vote("1300", 50.0, right=False) != vote("1400", 150.0, right=False)
    assert vote(" The  Dog. ", 1.0, right=False) == vote("the dog", 1.0, right=False)
    assert vote("99.9", 0.1, right=True) != vote("100.1", 0.1, right=True)


@pytest.mark.parametrize("answer", [None, "", "  ", 5])
def test_no_answer_is_no_vote(answer):
    assert vote(answer, None, right=True) is None


def test_failed_or_missing_rollouts_are_no_attempts():
    _, rollouts = group(0, [0.0, "unparseable", "failed:timeout", "missing"])
    assert [(attempt.right, attempt.answer) for attempt in attempts_of(rollouts)] == [(True, ""), (False, None)]


def token_location(folder, sample_id, *logprobs):
    file = TokenFile(folder / "0001.tokens")
    call = SampledTokens(array("I", [1]), array("I", range(len(logprobs))), array("f", logprobs))
    location = file.append(RolloutTokens("p", sample_id, [call]))
    file.close()
    return location


def test_mean_logprobs_are_read_from_token_files(tmp_path):
    location = token_location(tmp_path, 0, -0.5, -1.5)
    with LogprobReader(tmp_path) as logprobs:
        assert logprobs.mean(location, "p", 0) == pytest.approx(-1.0)
        assert logprobs.mean(location, "other", 0) is None
        assert logprobs.mean(None, "p", 0) is None
        assert logprobs.mean(TokenLocation(file="0002.tokens", offset=0), "p", 0) is None


def row(sample_id, right, answer, **more):
    verdict = {"status": "ok", "answer": answer, "error": float(not right)}
    messages = [{"role": "user", "content": "q"}]
    about = {"instance_id": "p", "sample_id": sample_id, "messages": messages, "completion": answer}
    return about | {"reward": float(right), "success": right, "verdict": verdict} | more


def test_any_rollouts_with_verdicts_have_curves(tmp_path):
    tokens = [token_location(tmp_path, index, mean).model_dump() for index, mean in enumerate((-0.1, -2.0, -3.0))]
    rows = [row(index, index == 0, "7" if index == 0 else "8", tokens=tokens[index]) for index in range(3)]
    failed = {"instance_id": "p", "sample_id": 3, "messages": [], "error": {"type": "timeout", "message": "m"}}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in [*rows, failed]))
    curves = {curve.name: curve.points[-1] for curve in corpus_curves(read_corpus([str(tmp_path / "rows.jsonl")]))}
    assert {name: (point.k, point.value) for name, point in curves.items() if "weighted" not in name} == {
        ANY_RIGHT: (3, 1.0),
        MAJORITY: (3, 0.0),
        LIKELIEST: (3, 1.0),
    }


def test_rollouts_without_verdicts_have_none(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instance_id": "p", "messages": []}) + "\n")
    [curve] = corpus_curves(read_corpus([str(tmp_path / "rows.jsonl")]))
    assert [point.value for point in curve.points] == [None]
