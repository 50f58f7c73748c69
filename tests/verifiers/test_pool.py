import asyncio
import gc
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from rollmill.errors import InputError
from rollmill.verifiers import VerifierFailed, VerifierPool
from rollmill.verifiers.process_sandbox import sandbox_missing
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def _nothing_stays(custom):
    before = set(psutil.Process().children(recursive=True))
    gc.freeze()  # all the imported packages are not searched for what this test left
    yield
    assert set(psutil.Process().children(recursive=True)) <= before
    gc.collect()  # what was not closed or retrieved warns here, and warnings are errors


def ask(problem, *completions, spec="unruly:Unruly", time_limit_s=20.0, workers=1):
    """Verify all completions concurrently; return the answer or failure of each, in order."""

    async def verify_one(pool, completion):
        try:
            return (await pool.verify(problem, completion)).answer
        except VerifierFailed as failure:
            return failure

    async def run():
        async with VerifierPool(spec, accept_error=0.0, time_limit_s=time_limit_s, workers=workers) as pool:
            return await asyncio.gather(*(verify_one(pool, completion) for completion in completions))

    return asyncio.run(run())


def test_trusted_verifier_runs_without_a_worker(make_problem):
    async def run():
        async with VerifierPool("numeric", accept_error=0.1) as pool:
            assert pool.identity == {"verifier": "numeric@2", "accept_error": 0.1}
            assert (await pool.verify(make_problem("3.3"), "<answer>3.4</answer>")).success
            with pytest.raises(VerifierFailed, match="p-1: answer 'abc' is not a number") as caught:
                await pool.verify(make_problem("abc"), "<answer>3.4</answer>")
            assert caught.value.type == "verifier_raised"

    asyncio.run(run())


def test_bad_input_is_reported_before_anything_starts():
    with pytest.raises(InputError, match="there is no verifier"):
        VerifierPool("nummeric", accept_error=0.0)


def test_a_verifier_that_raises_fails_alone(make_problem):
    first, raised, exited, second = ask(make_problem(), "pid", "raises", "exits", "pid")
    assert (raised.type, raised.message) == ("verifier_raised", r"KeyError: 'two\nlines'")
    assert (exited.type, exited.message) == ("verifier_raised", "SystemExit: 3")
    assert first == second


def test_invalid_result_is_a_failure(make_problem):
    messages = {
        "text": "verify returned str, not a Verdict",
        "nothing": "verify returned NoneType, not a Verdict",
        "broken": "verify returned a broken Verdict: .*status",
        "surrogate": "surrogates not allowed",
        "swells": "MemoryError",
    }
    first, *failures, last = ask(make_problem(), "pid", *messages, "pid")
    for failure, message in zip(failures, messages.values(), strict=True):
        assert failure.type == "verifier_raised"
        assert re.search(message, failure.message)
    assert first == last


def test_a_worker_that_dies_is_replaced(make_problem):
    first, left, crashed, orphaned, second = ask(make_problem(), "pid", "leaves", "crashes", "orphans", "pid")
    assert (left.type, left.message) == ("verifier_died", "the worker left with exit code 7")
    assert (crashed.type, crashed.message) == ("verifier_died", "the worker was killed by SIGSEGV")
    assert (orphaned.type, orphaned.message) == ("verifier_died", "the worker left with exit code 1")
    assert first != second
    assert not [p for p in psutil.process_iter(["cmdline"]) if "4242.25" in (p.info["cmdline"] or [])]


@pytest.mark.parametrize("reply", ["ff" * 16, f"{2:016x}5b5d"])
def test_a_worker_that_sends_no_reply_is_replaced(make_problem, reply):
    first, garbled, second = ask(make_problem(), "pid", f"garbles {reply}", "pid")
    assert garbled.type == "verifier_died"
    assert garbled.message.startswith("the worker sent no reply: ValueError: a message")
    assert first != second


def test_worker_that_exceeds_its_limit_is_replaced(make_problem):
    slept, fine = ask(make_problem(), "sleeps", "fine 1", time_limit_s=0.5)
    assert (slept.type, slept.message) == ("verifier_timeout", "no verdict within 2 s")
    assert fine == "1"


def test_using_up_the_cpu_time_is_a_verdict(make_problem):
    async def run():
        # Four times as long may it wait for the CPU, which other tests use, too.
        async with VerifierPool("unruly:Unruly", accept_error=0.0, time_limit_s=1.5, workers=1) as pool:
            return [await pool.verify(make_problem(), order) for order in ("spins", "deaf", "fine 1")]

    *spent, fine = asyncio.run(run())
    assert {(each.verifier, each.status, each.reason, each.reward, each.success) for each in spent} == {
        ("unruly@1", "unparseable", "verifier_timeout", 0.0, False)
    }
    assert fine.success


def test_a_built_in_verifier_whose_worker_dies_is_tried_again(make_problem, monkeypatch):
    tries = []

    async def verify(pool, problem, completion):
        tries.append(completion)
        if len(tries) < 2:
            raise VerifierFailed("verifier_died", "the worker was killed by SIGKILL")
        return "a verdict"

    async def run():
        async with VerifierPool("math", accept_error=0.0) as pool:
            return await pool.verify(make_problem(), "7")

    monkeypatch.setattr(VerifierPool, "_verify_in_worker", verify)
    assert (asyncio.run(run()), tries) == ("a verdict", ["7", "7"])


def test_time_limit_excludes_the_start(make_problem):
    assert ask(make_problem(), "fine 1", spec="unruly:SlowStart", time_limit_s=0.5) == ["1"]


def test_a_worker_that_cannot_start_says_why(make_problem):
    (died,) = ask(make_problem(), "fine 1", spec="unruly:DiesAtStart")
    assert (died.type, died.message) == ("verifier_died", "the worker left with exit code 9")
    failures = ask(make_problem(), "fine 1", "fine 2", spec="unruly:FailsAtStart")
    assert [failure.message for failure in failures] == ["cannot start: RuntimeError: no licence"] * 2


def test_output_and_forks_of_a_verifier_are_ignored(make_problem, capfd):
    assert ask(make_problem(), "prints", "forks", "fine 1") == ["printed", "parent", "1"]
    captured = capfd.readouterr()
    assert "from a child" in captured.err
    assert captured.out == ""


def test_workers_run_in_parallel_up_to_the_requested_number(make_problem):
    pids = ask(make_problem(), *["pid"] * 6, workers=2)
    assert len(set(pids)) == 2
    (one_began, one_ended), (two_began, two_ended) = (
        map(float, answer.split()) for answer in ask(make_problem(), "nap 1.5", "nap 1.5", workers=2)
    )
    assert max(one_began, two_began) < min(one_ended, two_ended)


def test_the_worker_sees_the_problem_and_the_users_environment(make_problem, monkeypatch):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    problem = make_problem(shape=(1, 2), ratio=float("nan"))
    orders = ["field shape", "field ratio", "environment PYTHONPATH", "environment PYTHONHASHSEED", "fine \ud800é"]
    assert ask(problem, *orders) == ["[1, 2]", "None", "/somewhere", None, "?é"]


def test_a_problem_that_json_cannot_hold_fails_alone(make_problem):
    (failure,) = ask(make_problem(thing=object()), "fine 1")
    assert failure.type == "verifier_raised"
    assert "p-1: the problem cannot be sent to a worker as JSON" in failure.message


def test_cancelled_verification_ends_its_worker(make_problem):
    async def run():
        async with VerifierPool("unruly:Unruly", accept_error=0.0, workers=1) as pool:
            await pool.verify(make_problem(), "fine 1")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.verify(make_problem(), "sleeps"), 0.3)
            assert (await pool.verify(make_problem(), "fine 2")).answer == "2"
            starting = asyncio.create_task(pool.verify(make_problem(), "sleeps"))
            await asyncio.sleep(0.1)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting

    asyncio.run(run())


def test_worker_that_dies_idle_is_replaced_without_a_failure(make_problem):
    async def run():
        async with VerifierPool("unruly:Unruly", accept_error=0.0, workers=1) as pool:
            pid = int((await pool.verify(make_problem(), "pid")).answer)
            os.kill(pid, 9)
            await asyncio.sleep(0.5)
            assert (await pool.verify(make_problem(), "fine 1")).answer == "1"

    asyncio.run(run())


@pytest.mark.parametrize("delay", [0.0, 0.05, 1.5])
def test_closing_ends_running_verifications(make_problem, delay):
    async def run():
        async with VerifierPool("unruly:Unruly", accept_error=0.0, workers=1) as pool:
            tasks = [asyncio.create_task(pool.verify(make_problem(), "sleeps")) for _ in range(3)]
            await asyncio.sleep(delay)
        return await asyncio.gather(*tasks, return_exceptions=True)

    failures = asyncio.run(run())
    assert {failure.type for failure in failures} == {"verifier_died"}


def test_pool_works_outside_the_main_thread(make_problem):
    answers = []
    thread = threading.Thread(target=lambda: answers.extend(ask(make_problem(), "fine 1", "leaves", "fine 2")))
    thread.start()
    thread.join()
    assert (answers[0], answers[1].type, answers[2]) == ("1", "verifier_died", "2")


@pytest.mark.parametrize("order", ["sleeps", "spins", "fine 1"])
def test_kill_9_of_the_run_leaves_no_worker(tmp_path, order):
    run = tmp_path / "run.py"
    run.write_text(f"""
import asyncio
from rollmill.records import Problem
from rollmill.verifiers import VerifierPool

async def main():
    problem = Problem(instance_id="p", prompt="?")
    async with VerifierPool("unruly:Unruly", accept_error=0.0, workers=2) as pool:
        print(*[(await pool.verify(problem, "pid")).answer], flush=True)
        await asyncio.gather(pool.verify(problem, "{order}"), pool.verify(problem, "{order}"), asyncio.sleep(60))

asyncio.run(main())
""")
    folders = os.pathsep.join([str(Path(__file__).parent / "custom"), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": folders}
    with subprocess.Popen([sys.executable, str(run)], stdout=subprocess.PIPE, text=True, env=environment) as process:
        worker = psutil.Process(int(process.stdout.readline()))
        wait_until(lambda: len(psutil.Process(process.pid).children(recursive=True)) == 2)
        workers = psutil.Process(process.pid).children(recursive=True)
        assert worker in workers
        process.kill()
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive


@pytest.mark.slow
@pytest.mark.skipif(sandbox_missing() is not None, reason="there is no bubblewrap here")
def test_kill_9_of_the_run_leaves_nothing_in_a_sandbox(tmp_path):
    run = tmp_path / "run.py"
    run.write_text("""
import asyncio
from rollmill.records import Problem
from rollmill.verifiers import VerifierPool

async def main():
    async with VerifierPool("math", accept_error=0.0, workers=1) as pool:
        await pool.verify(Problem(instance_id="p", prompt="?", answer="7"), "7")
        print("ready", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
""")
    with subprocess.Popen([sys.executable, str(run)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        inside = psutil.Process(process.pid).children(recursive=True)
        inside[-1].suspend()  # it cannot see by itself that its input has ended
        process.kill()
    assert len(inside) == 3  # bubblewrap, its namespace's first process, the worker
    _, alive = psutil.wait_procs(inside, timeout=5)
    assert not alive


@pytest.mark.slow
def test_heavy_verifiers_work_in_workers(make_problem):
    assert ask(make_problem("1/2"), "<answer>0.5</answer>", spec="math", time_limit_s=5) == ["0.5"]
    problem = make_problem(reasoning_gym={"name": "leg_counting", "config": {"seed": 7}, "index": 1})
    problem = problem.model_copy(update={"prompt": [{"role": "user", "content": "in a chat"}]})
    assert ask(problem, "<answer>12</answer>", spec="reasoning_gym", time_limit_s=5) == ["12"]


@pytest.mark.slow
def test_an_endless_simplification_is_ended(make_problem):
    async def run():
        async with VerifierPool("math", accept_error=0.0, time_limit_s=1, workers=1) as pool:
            return [await pool.verify(make_problem("7"), text) for text in ("$9^{9^{9^{9}}}$", "$7$")]

    spent, fine = asyncio.run(run())
    assert (spent.reason, spent.success, fine.success) == ("verifier_timeout", False, True)
