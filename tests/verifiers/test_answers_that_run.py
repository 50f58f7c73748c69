"""Attacks on the sandbox alone: scorers receive programs without the check of answers that comes before."""

import asyncio
import gc
import socket
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from rollmill.problems import gym
from rollmill.records import Problem
from rollmill.sandboxes.sandbox import Limits
from rollmill.verifiers import VerifierFailed, VerifierPool, frames, process_sandbox, worker_process
from rollmill.verifiers.worker_process import WorkerProcess
from tests.verifiers import attacks

pytestmark = pytest.mark.skipif(process_sandbox.sandbox_missing() is not None, reason="there is no bubblewrap here")

LIMIT_S = 1.5


class After(NamedTuple):
    """Result of an answer, and of the next two answers in the same worker."""

    outcome: float | str | VerifierFailed
    right: float
    wrong: float
    same_worker: bool


def entry_of(name, **config):
    origin = {"name": name, "config": {"seed": 7, "size": 20, **config}, "index": 1}
    entry = gym.make_entry(gym.create_dataset(name, origin["config"]), 1)
    return entry["answer"], Problem(instance_id="p-1", prompt=entry["question"], fields={"reasoning_gym": origin})


def bare(patch):
    """Make the package `bare` importable in workers of built-in verifiers."""
    patch.syspath_prepend(Path(__file__).parent / "custom")
    patch.setattr(process_sandbox, "_PACKAGES", (*process_sandbox._PACKAGES, "bare"))


@pytest.fixture(scope="module")
def came_to(tmp_path_factory):
    """Map the name of each attack to its `After`; one worker is used as long as it lives."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "secret").write_text("secret")
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as server:
        bare(patch)
        patch.chdir(folder)
        patch.setenv("VLLM_API_KEY", "secret")
        known = {**attacks.KEEP_ALIVE, **attacks.ENDLESS, **attacks.reaching(server.getsockname()[1], str(folder))}
        outcomes = asyncio.run(attacked(known))
        assert [each.name for each in folder.iterdir()] == ["secret"]
    gc.collect()
    return outcomes


async def attacked(known):
    right, problem = entry_of("string_insertion")
    outcomes = {}
    async with VerifierPool("reasoning_gym", accept_error=0.0, time_limit_s=LIMIT_S, workers=1) as pool:
        pool._spec = "bare:verifier"

        async def reward(answer):
            return (await pool.verify(problem, f"<answer>{answer}</answer>")).reward

        assert await reward(attacks.as_answer("ok = True", right)) == 0.1, "the scorer does not run the answer"
        for name, code in known.items():
            [worker] = pool._idle
            try:
                verdict = await pool.verify(problem, f"<answer>{attacks.as_answer(code, right)}</answer>")
                outcome = verdict.reason or verdict.reward
            except VerifierFailed as failure:
                outcome = failure
            after = await reward(right), await reward("['wrong']")
            outcomes[name] = After(outcome, *after, same_worker=pool._idle == [worker])
    return outcomes


NAMES = [*attacks.KEEP_ALIVE, *attacks.ENDLESS, *attacks.reaching(0, "")]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_attacks_in_a_sandbox_have_no_effect(came_to, name):
    after = came_to[name]
    assert isinstance(after.outcome, VerifierFailed) or after.outcome in {0, "verifier_timeout"}
    assert (after.right, after.wrong, after.same_worker) == (1, 0, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", attacks.ENDLESS)
def test_endless_answer_is_killed_and_later_ones_are_judged(came_to, name):
    outcome = came_to[name].outcome
    assert outcome == "verifier_timeout" or outcome.type in {"verifier_timeout", "verifier_died"}


@pytest.mark.slow
@pytest.mark.parametrize("name", attacks.OUT_OF_MEMORY)
def test_lack_of_memory_is_not_a_wrong_answer(came_to, name):
    assert str(came_to[name].outcome) == "verifier_died: the judgement ran out of memory"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("exits", "the judgement left with exit code 0"),
        ("crashes", "the judgement was killed by SIGSEGV"),
        ("forges for another", "the judgement gave no reply of its verifier's"),
        ("forges frames", "the judgement gave no reply: "),
        ("replies without end", "the judgement gave more than"),
    ],
)
def test_missing_verdict_has_a_reason(came_to, name, message):
    assert came_to[name].outcome.message.startswith(message)


@pytest.mark.parametrize("name", ["n_queens", "string_insertion"])
def test_answer_does_not_run_with_the_users_rights(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    _, problem = entry_of(name)

    async def run():
        async with VerifierPool("reasoning_gym", accept_error=0.0, workers=1) as pool:
            return await pool.verify(problem, "<answer>[__import__('os').system('id > pwned')]</answer>")

    assert not asyncio.run(run()).success
    assert list(tmp_path.iterdir()) == []


def test_verifier_without_a_fork_is_confined_as_well(make_problem, monkeypatch, tmp_path):
    bare(monkeypatch)
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    request = {
        "sorted(os.environ)": [
            *("LANG", "MPLCONFIGDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
            *("PWD", "PYTHONDONTWRITEBYTECODE", "PYTHONHASHSEED"),
        ],
        f"os.path.exists({str(tmp_path)!r}) or os.path.exists('/proc') or os.path.exists('/bin/sh')": False,
        "attempt(os.fork)": "Function not implemented",
        "attempt(os.kill, 1, 9)": "Function not implemented",
        "attempt(os.mkdir, '/here')": "Read-only file system",
        "attempt(os.mkdir, '/scratch/here')": "Permission denied",
    }
    replies = asyncio.run(peek(make_problem(), list(request)))
    assert [reply["verdict"]["answer"] for reply in replies] == [repr(answer) for answer in request.values()]


def test_answer_exceeding_memory_in_process_gives_no_verdict(make_problem, monkeypatch):
    bare(monkeypatch)
    monkeypatch.setattr(worker_process, "LIMITS", Limits(memory_mb=256))
    small, refused, large = asyncio.run(peek(make_problem(), ["1", "len(b'x' * 2 * 10**9)", "len(b'x' * 3 * 10**8)"]))
    assert small["verdict"]["answer"] == "1"
    assert refused == {"raised": "MemoryError"}
    message = "the verification took more than 256 MiB"
    assert large == {"failed": {"type": "verifier_died", "message": message}, "last": True}


def test_cause_of_death_in_a_sandbox_is_reported(make_problem, monkeypatch):
    bare(monkeypatch)
    with pytest.raises(VerifierFailed, match="verifier_died: the worker left with exit code 7"):
        asyncio.run(peek(make_problem(), ["os._exit(7)"]))
    with pytest.raises(VerifierFailed, match="verifier_died: the worker was killed by SIGSEGV"):
        asyncio.run(peek(make_problem(), ["os.abort()"]))  # it cannot even signal itself


async def peek(problem, expressions):
    worker = await WorkerProcess.spawn(built_in=True)
    try:
        await worker.prepare("bare:Peek", {})
        requests = [{"problem": problem.model_dump(), "completion": each, "limit_s": 9.0} for each in expressions]
        return [await worker.request(frames.pack(each), 9.0) for each in requests]
    finally:
        await worker.end()


def test_killing_bubblewrap_ends_all_processes_in_the_sandbox(make_problem):
    async def run():
        async with VerifierPool("math", accept_error=0.0, workers=1) as pool:
            await pool.verify(make_problem(), "7")
            inside = psutil.Process(pool._idle[0]._transport.get_pid()).children(recursive=True)
            assert len(inside) == 2
        _, alive = psutil.wait_procs(inside, timeout=5)
        return alive

    assert asyncio.run(run()) == []
