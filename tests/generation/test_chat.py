import asyncio
import base64

import orjson
import pytest

from rollmill.errors import InputError
from rollmill.generation import chat as module
from rollmill.generation.chat import ChatRollouts
from rollmill.generation.identity import rollout_seed
from rollmill.generation.sampling import Sampling
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.inference.scripted import Script, ScriptedServer
from rollmill.problems import Prompting
from rollmill.records import Problem, Rollout
from rollmill.verifiers import VerifierFailed, VerifierPool
from tests.generation.run_factory import PLAIN, append, opened
from tests.inference.raw_server import RawServer
from tests.problems.conftest import make_png

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=64, seed=5)


def make(run, url, *, problem=None, prompting=PLAIN, sampling=SAMPLING, **config):
    """Return all pending rollouts of a run (of one problem), as journal rows and as outcomes for the engine."""

    async def main():
        client = ChatClient(EndpointPool([Endpoint(url)]), ClientConfig(**{"max_retries": 0} | config))
        async with VerifierPool("numeric", accept_error=0.0) as verifiers, client:
            rollouts = ChatRollouts(client, verifiers, model="scripted", sampling=sampling, prompting=prompting)
            problems = [problem] if problem else list(run.problems())
            return [await rollouts(work) for work in rollouts.work(run, problems)]

    return asyncio.run(main())


def read(completed):
    assert completed.line.endswith(b"\n")
    assert completed.line.count(b"\n") == 1
    return Rollout.model_validate_json(completed.line)


def test_every_field_of_a_row(tmp_path):
    script = Script(completion="<answer>0</answer> é")
    with opened(tmp_path, rows=1, num_rollout=2) as run, ScriptedServer(script) as server:
        completed = make(run, server.base_url)
        bodies = server.bodies
    first, second = map(read, completed)
    seed = rollout_seed(5, "p0", 0)
    assert bodies[0] == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "question 0"}],
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 64,
        "seed": seed,
        "stream": False,
    }
    assert bodies[1] == bodies[0] | {"seed": rollout_seed(5, "p0", 1)}
    assert second.seed == rollout_seed(5, "p0", 1) != seed
    assert first.latency_s >= 0
    assert first.model_dump(mode="json", exclude={"latency_s"}) == {
        "schema_version": 1,
        "instance_id": "p0",
        "sample_id": 0,
        "seed": seed,
        "messages": [{"role": "user", "content": "question 0"}],
        "completion": "<answer>0</answer> é",
        "reward": 1.0,
        "success": True,
        "verdict": {
            "verifier": "numeric@2",
            "status": "ok",
            "answer": "0",
            "error": 0.0,
            "reason": None,
            "reward": 1.0,
            "success": True,
        },
        "error": None,
        "usage": {"prompt_tokens": 16, "completion_tokens": 6},
        "finish_reason": "stop",
        "model_calls": 1,
        "metadata": {"model": "scripted", "attempt": 0, "max_tokens": 64},
    }
    left_out = {
        "run_identity",
        "reasoning_content",
        "tool_calls",
        "tools",
        "chat_template_kwargs",
        "tokens",
        "stop_text",
    }
    assert orjson.loads(completed[0].line).keys() == Rollout.model_fields.keys() - left_out
    assert orjson.loads(completed[0].line) == first.model_dump(mode="json")
    assert (completed[0].instance_id, completed[0].sample_id, completed[0].failure) == ("p0", 0, None)
    assert (completed[0].outcome.status, completed[0].outcome.success, completed[0].outcome.completion_tokens) == (
        "ok",
        True,
        6,
    )


def test_a_bad_answer_is_data(tmp_path):
    script = Script(completion="I do not know", finish_reason="length")
    with opened(tmp_path, rows=1, num_rollout=1) as run, ScriptedServer(script) as server:
        (completed,) = make(run, server.base_url)
    row = read(completed)
    assert (row.status, row.reward, row.success, row.error) == ("unparseable", 0.0, False, None)
    assert (completed.outcome.status, completed.outcome.truncated, completed.outcome.failed) == (
        "unparseable",
        True,
        False,
    )


def test_a_failed_request_is_a_row_with_an_error(tmp_path):
    with opened(tmp_path, rows=1, num_rollout=1) as run, ScriptedServer(Script(always="400")) as server:
        (completed,) = make(run, server.base_url)
    row = read(completed)
    assert (row.error.type, row.error.message) == ("http_400", f"{server.base_url} answers 400: scripted 400")
    assert (row.completion, row.reward, row.success, row.verdict, row.latency_s) == (None,) * 5
    assert (row.finish_reason, row.model_calls, row.usage.completion_tokens) == (None, 1, 0)
    assert completed.failure == row.error.message
    assert (completed.outcome.status, completed.outcome.error_type) == ("failed", "http_400")


def test_verifier_failure_gives_an_error_row_with_the_completion(tmp_path, monkeypatch):
    async def verify(self, problem, completion, **_):
        raise VerifierFailed("verifier_timeout", "no verdict within 1 s")

    monkeypatch.setattr(VerifierPool, "verify", verify)
    with opened(tmp_path, rows=1, num_rollout=1) as run, ScriptedServer(Script()) as server:
        (completed,) = make(run, server.base_url)
    row = read(completed)
    assert (row.error.type, row.error.message) == ("verifier_timeout", "no verdict within 1 s")
    assert row.completion.startswith("It is <answer>")
    assert (row.reward, row.success, row.verdict) == (None, None, None)
    assert (row.finish_reason, row.model_calls) == ("stop", 1)
    assert completed.outcome.failed


def answering(message, **choice):
    content = orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"} | choice]})
    return RawServer(lambda *_: (200, content))


def test_reasoning_is_kept(tmp_path):
    thinking = answering({"content": None, "reasoning": "hm"}, finish_reason="length")
    with opened(tmp_path, rows=1, num_rollout=1) as run, thinking as server:
        (completed,) = make(run, server.base_url)
    row = read(completed)
    assert (row.completion, row.reasoning_content, row.status) == ("", "hm", "unparseable")


def test_lone_surrogates_in_a_completion(tmp_path):
    content = rb'{"choices": [{"message": {"content": "<answer>0</answer> \ud800"}, "finish_reason": "stop"}]}'
    with opened(tmp_path, rows=1, num_rollout=1) as run, RawServer(lambda *_: (200, content)) as server:
        (completed,) = make(run, server.base_url)
    row = read(completed)
    assert (row.completion, row.success) == ("<answer>0</answer> ?", True)


@pytest.mark.parametrize("text", ["\x00\x1f", "\u2028 \u2029 \x85", "line\nline\r\n", "🦙" * 100, '"\\'])
def test_any_text_is_one_line_of_json(tmp_path, text):
    with opened(tmp_path, rows=1, num_rollout=1) as run, answering({"content": text}) as server:
        (completed,) = make(run, server.base_url)
        run.journal.append(completed)
        assert run.journal.group("p0", 1)[0].completion == text


def test_images_are_sent_and_their_paths_kept(tmp_path):
    pngs = [make_png(index) for index in range(3)]
    for index, png in enumerate(pngs):
        (tmp_path / f"{index}.png").write_bytes(png)
    row = {"id": "p0", "prompt": "Look: <image> <image> <image>", "answer": "1", "images": ["2.png", "0.png", "1.png"]}
    with opened(tmp_path, rows=[row], num_rollout=1) as run, ScriptedServer(Script()) as server:
        (completed,) = make(run, server.base_url)
        (problem,) = run.problems()
        parts = server.bodies[0]["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert urls == [f"data:image/png;base64,{base64.b64encode(pngs[index]).decode()}" for index in (2, 0, 1)]
    kept = [part for part in read(completed).messages[0]["content"] if part["type"] == "image"]
    assert [part["image"] for part in kept] == [image.path for image in problem.images]
    assert [(tmp_path / part["image"]).read_bytes() for part in kept] == [pngs[index] for index in (2, 0, 1)]
    assert b"base64" not in completed.line


def test_only_requested_samples_are_generated(tmp_path):
    with opened(tmp_path, rows=2, num_rollout=2) as run, ScriptedServer(Script()) as server:
        append(run.journal, "p0", 0)
        append(run.journal, "p0", 1)
        append(run.journal, "p1", 1)
        assert [(completed.instance_id, completed.sample_id) for completed in make(run, server.base_url)] == [("p1", 0)]


def test_another_attempt_has_another_seed(tmp_path):
    with opened(tmp_path, rows=1, num_rollout=1) as run:
        append(run.journal, "p0", 0, finish_reason="length")
    with opened(tmp_path, rows=1, num_rollout=1, retry="truncated") as run, ScriptedServer(Script()) as server:
        (completed,) = make(run, server.base_url)
    row = read(completed)
    assert row.seed == rollout_seed(5, "p0", 0, 1)
    assert row.metadata["attempt"] == completed.outcome.attempt == 1


def test_a_problem_is_prepared_when_its_turn_comes(tmp_path, monkeypatch):
    prepared = []
    real = module.build_messages
    monkeypatch.setattr(module, "build_messages", lambda problem, p: prepared.append(problem) or real(problem, p))
    with opened(tmp_path, rows=3, num_rollout=2) as run:
        client = ChatClient(EndpointPool([Endpoint("http://127.0.0.1:9/v1")]), ClientConfig())
        rollouts = ChatRollouts(client, None, model="m", sampling=SAMPLING, prompting=PLAIN)
        work = rollouts.work(run, list(run.problems()))
        assert [next(work).sample_id, next(work).sample_id] == [0, 1]
        assert len(prepared) == 1
        assert next(work).sample_id == 0
        assert len(prepared) == 2


def test_missing_column_is_reported(tmp_path):
    with opened(tmp_path, rows=1) as run, pytest.raises(InputError, match="p0 has no column 'topic'"):
        make(run, "http://127.0.0.1:9/v1", prompting=Prompting(template="{prompt} {topic}"))


def test_prompt_that_is_not_json_is_reported(tmp_path):
    problem = Problem(instance_id="p", prompt="a \ud800 b", answer="1")
    with opened(tmp_path) as run, pytest.raises(InputError, match="the prompt of p cannot be sent as JSON"):
        make(run, "http://127.0.0.1:9/v1", problem=problem)
