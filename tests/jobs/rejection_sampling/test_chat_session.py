import pickle
import sys
from pathlib import Path

import orjson
import pytest

from rollmill.errors import InputError, RunStoppedError
from rollmill.generation.progress import progress_of
from rollmill.generation.shard import ShardRun, ShardScheduler
from rollmill.generation.worker_session import SessionCache, worker
from rollmill.inference.server import ServerConfig
from rollmill.jobs.rejection_sampling.chat_session import chat_order, chat_session
from rollmill.jobs.rejection_sampling.checkpoint import checkpoints
from rollmill.jobs.rejection_sampling.parameters import RejectSampling
from tests.generation.made import opened

SCRIPTED = ServerConfig(python=sys.executable, module="rollmill.inference.scripted")


def order_of(**given):
    parameters = RejectSampling(**{"model_path": "m", "model_name": "n", "max_tokens": 100} | given)
    return chat_order(parameters, checkpoints(parameters)[0])


def test_what_a_worker_is_told_holds_wherever_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "template.txt").write_text("Say: {prompt}")
    order = order_of(model_path="model", prompt_template="template.txt")
    assert order.checkpoint.path == str(tmp_path / "model")
    assert order.directory == tmp_path / "reject_sampling_results/n"
    assert order.checkpoint.log_path == tmp_path / "logs/n_vllm.log"
    assert order.prompting.template == "Say: {prompt}"
    assert pickle.loads(pickle.dumps(order)) == order
    assert order_of(model_path="model", base_url="http://a").checkpoint.path == "model"  # a server's name for it
    assert order_of(model_path="org/model").checkpoint.path == "org/model"
    with pytest.raises(InputError, match="nowhere"):
        order_of(few_shot="nowhere.jsonl")


def test_a_worker_serves_the_model_itself(tmp_path):
    order = order_of(model_path=str(tmp_path), output_dir=str(tmp_path), log_dir=str(tmp_path / "logs"), num_rollout=2)

    def opening(part, is_given_up):
        return chat_session(order, part, is_given_up, server=SCRIPTED, endpoint=None)

    with opened(tmp_path / "run", rows=2, num_rollout=2) as run:
        shard = ShardScheduler(run, progress_of(run)).cut(100)
    keeper = SessionCache()
    given = keeper.make(order, opening, shard)
    keeper.end()
    rows = [orjson.loads(one.line) for one in given.made]
    assert {row["metadata"]["model"] for row in rows} == {"n"}
    assert [one.outcome.status for one in given.made] == ["ok"] * 4
    [log] = (tmp_path / "logs").iterdir()
    assert log.name == f"n_vllm.{worker().replace(':', '-')}.log"


@pytest.mark.timeout(300)
def test_a_server_that_nobody_waits_for_any_more_ends_before_it_is_ready(tmp_path):
    order = order_of(log_dir=str(tmp_path), vllm_args="""--script '{"start_s": 600}'""")
    asked = 0

    def is_given_up():
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(RunStoppedError, match="not wanted any more"):
        chat_session(order, ShardRun(Path()), is_given_up, server=SCRIPTED, endpoint=None).__enter__()
    assert asked > 3
