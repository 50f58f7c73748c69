import json
from contextlib import contextmanager

import pytest

from rollmill.files.rows import dump_line
from rollmill.generation.engine import CompletedRollout
from rollmill.generation.tally import RolloutOutcome
from rollmill.jobs.episodes.outcome import write_rows
from rollmill.jobs.episodes.record import EpisodeRollout, EpisodeTurn
from rollmill.jobs.episodes.selection import REASONING_ONLY, TRUNCATED, Selection
from rollmill.records import Failure, Usage, Verdict
from tests.generation.run_factory import opened


def episode(number, sample_id, success, *, turns=2, finish_reason="stop"):
    """An episode of two agents who act in turn; `success` None for one that failed on the way."""
    messages, played = [], []
    for index in range(turns):
        messages += [{"role": "user", "content": f"ask {index}"}, {"role": "assistant", "content": f"say {index}"}]
        played.append(
            EpisodeTurn(
                agent_name=("coder", "tester")[index % 2],
                policy_name="m",
                turn_idx=index // 2,
                first=2 * index,
                end=2 * index + 2,
                reward=0.5 * index,
                seed=index,
                finish_reason=finish_reason,
            )
        )
    failed = Failure(type="connection", message="gone") if success is None else None
    verdict = None if failed else Verdict(verifier="e@1", status="ok", reward=float(success), success=success)
    return EpisodeRollout(
        instance_id=f"p{number}", sample_id=sample_id, seed=1, messages=messages, completion=None,
        reward=verdict and verdict.reward, success=success, verdict=verdict, error=failed,
        usage=Usage(prompt_tokens=10, completion_tokens=2), latency_s=1.0, finish_reason=finish_reason,
        model_calls=turns, env_name="toy_env", turns=played,
    )  # fmt: skip


@contextmanager
def run_of(folder, *episodes, problems=3, expected=9):
    with opened(folder, rows=problems, expected=expected) as run:
        for item in episodes:
            row = item.model_dump(mode="json")
            outcome = RolloutOutcome.of_row(row)
            run.journal.append(CompletedRollout(item.instance_id, item.sample_id, dump_line(row), outcome))
        yield run


def written(folder, run, **selection):
    statistics = write_rows(run, Selection(**selection), folder / "rows.jsonl", "toy_env")
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], statistics


def keys(rows):
    return [(row["metadata"]["env_idx"], row["metadata"]["rollout_idx"], row["metadata"]["turn_idx"]) for row in rows]


def test_a_row_has_the_documented_keys(tmp_path):
    with run_of(tmp_path, episode(1, 2, True, turns=1)) as run:
        rows, _ = written(tmp_path, run)
    assert rows == [
        {
            "messages": [{"role": "user", "content": "ask 0"}, {"role": "assistant", "content": "say 0"}],
            "metadata": {
                "agent_name": "coder", "policy_name": "m", "reward": 0.0, "env_success": True, "env_name": "toy_env",
                "env_idx": 1, "rollout_idx": 2, "turn_idx": 0, "instance_id": "p1",
            },
        }
    ]  # fmt: skip


def test_all_turns_of_an_episode_or_none(tmp_path):
    result = [episode(0, 0, True, turns=3), episode(0, 1, False, turns=4), episode(1, 0, None, turns=1)]
    with run_of(tmp_path, *result) as run:
        rows, statistics = written(tmp_path, run)
        assert keys(rows) == [(0, 0, 0), (0, 0, 0), (0, 0, 1)]
        assert statistics.left_out == {"episode did not succeed": 4, "episode failed on the way": 1}
        rows, statistics = written(tmp_path, run, only_success=False)
        assert len(rows) == 7
        assert {row["metadata"]["env_success"] for row in rows} == {True, False}
        assert statistics.left_out == {"episode failed on the way": 1}


def test_statistics_count_every_episode_and_turn(tmp_path):
    result = [episode(0, 0, True), episode(0, 1, False, finish_reason="length"), episode(1, 0, None)]
    with run_of(tmp_path, *result) as run:
        _, statistics = written(tmp_path, run)
    counted = statistics.to_json()
    assert {name: counted[name] for name in ("wanted", "episodes", "successes", "unsuccessful", "failed")} == {
        "wanted": 9, "episodes": 3, "successes": 1, "unsuccessful": 1, "failed": 1,
    }  # fmt: skip
    assert counted["success_rate"] == 0.5
    assert (counted["turns"], counted["rows"]) == (6, 2)
    assert counted["errors"] == {"connection": 1}
    assert counted["agents"] == {
        "coder": {"policy_name": "m", "turns": 3, "rows": 1, "mean_reward": 0.0, "truncated": 1},
        "tester": {"policy_name": "m", "turns": 3, "rows": 1, "mean_reward": 0.5, "truncated": 1},
    }
    assert (counted["model_calls"], counted["prompt_tokens"], counted["completion_tokens"]) == (6, 30, 6)
    assert "1 episodes failed on the way (1 connection); --retry failed plays just those again" in statistics.notes()
    assert "33% of the answers of coder were cut off: raise --max_tokens" in statistics.notes()


def test_keep_agents_selects_their_turns(tmp_path):
    with run_of(tmp_path, episode(0, 0, True, turns=4)) as run:
        rows, statistics = written(tmp_path, run, agents=("tester",))
        assert [row["metadata"]["agent_name"] for row in rows] == ["tester", "tester"]
        assert statistics.left_out == {"other agent": 2}
        rows, statistics = written(tmp_path, run, agents=("nobody",))
    assert rows == []
    assert statistics.notes() == ["no row was kept: no agent of --keep_agents acted in an episode that succeeded"]


@pytest.mark.parametrize(("successes", "others"), [(3, 9), (9, 3), (4, 4), (0, 5)])
def test_balance_success_keeps_equal_numbers(tmp_path, successes, others):
    result = [episode(number, 0, number < successes, turns=1) for number in range(successes + others)]
    with run_of(tmp_path, *result, problems=len(result), expected=len(result)) as run:
        rows, statistics = written(tmp_path, run, only_success=False, balance_success=True, seed=1)
        again, _ = written(tmp_path, run, only_success=False, balance_success=True, seed=1)
        other, _ = written(tmp_path, run, only_success=False, balance_success=True, seed=2)
    fewer = min(successes, others)
    assert [row["metadata"]["env_success"] for row in rows].count(True) == fewer
    assert [row["metadata"]["env_success"] for row in rows].count(False) == fewer
    assert statistics.left_out.get("episode left out for balance", 0) == len(result) - 2 * fewer
    assert rows == again
    assert (rows == other) == (fewer == 0 or successes == others)


def test_without_episodes_the_file_is_empty_and_noted(tmp_path):
    with run_of(tmp_path) as run:
        rows, statistics = written(tmp_path, run)
    assert rows == []
    assert statistics.to_json()["success_rate"] is None
    with run_of(tmp_path / "other", episode(0, 0, False)) as run:
        _, statistics = written(tmp_path / "other", run)
    assert statistics.notes() == ["no row was kept: no episode succeeded; --no_successful_only keeps the others, too"]


@pytest.mark.parametrize("reason", ["length", "max_tokens"])
def test_a_truncated_answer_is_a_row_only_with_keep_truncated(tmp_path, reason):
    with run_of(tmp_path, episode(0, 0, True, finish_reason=reason), episode(1, 0, True)) as run:
        rows, statistics = written(tmp_path, run)
        assert (len(rows), statistics.left_out) == (2, {TRUNCATED: 2})
        assert all("truncated" not in row["metadata"] for row in rows)
        rows, _ = written(tmp_path, run, keep_truncated=True)
    assert [row["metadata"].get("truncated") for row in rows] == [True, True, None, None]


def test_an_answer_of_thoughts_alone_gives_no_row(tmp_path):
    item = episode(0, 0, True)
    item.messages[1] |= {"content": "", "reasoning_content": "hm"}
    with run_of(tmp_path, item) as run:
        rows, statistics = written(tmp_path, run)
    assert (len(rows), statistics.left_out) == (1, {REASONING_ONLY: 1})
