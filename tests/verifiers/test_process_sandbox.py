import asyncio
import logging
from functools import partial
from pathlib import Path

import pytest

from rollmill.environments.mathematics.environment import MathEnvironment, MathSettings
from rollmill.errors import InputError
from rollmill.problems import ProblemSource, gym, load_problems
from rollmill.records import Problem
from rollmill.sandboxes.system_calls import filter_program
from rollmill.verifiers import VerifierPool, frames, make_verifier, problem_fault, process_sandbox
from rollmill.verifiers.worker_process import WorkerProcess


@pytest.fixture
def no_bubblewrap(monkeypatch, tmp_path):
    """A machine on which bubblewrap is not installed."""
    cached = (process_sandbox.sandbox_missing, process_sandbox.warn_unsandboxed)
    for each in cached:
        each.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    yield
    for each in cached:
        each.cache_clear()


def of(name):
    origin = {"name": name, "config": {"seed": 7, "size": 20}, "index": 1}
    return Problem(instance_id="p-1", prompt=[{"role": "user", "content": "?"}], fields={"reasoning_gym": origin})


def ask(spec, problem, completion, times=1):
    async def run():
        async with VerifierPool(spec, accept_error=0.0, workers=1) as pool:
            return [await pool.verify(problem, completion) for _ in range(times)]

    return asyncio.run(run())


def test_missing_sandbox_is_reported_once_and_verdicts_continue(no_bubblewrap, make_problem, caplog):
    with caplog.at_level(logging.WARNING):
        assert all(verdict.success for _ in range(2) for verdict in ask("math", make_problem("1/2"), "$0.5$", times=2))
    [message] = [record.getMessage() for record in caplog.records]
    assert message == (
        "verdicts of math and reasoning_gym are made in processes without a sandbox: "
        "bubblewrap is not installed: install the package bubblewrap"
    )


@pytest.mark.slow
def test_without_a_sandbox_scorers_that_do_not_evaluate_still_work(no_bubblewrap):
    problem = of("leg_counting")
    entry = gym.make_entry(gym.create_dataset("leg_counting", {"seed": 7, "size": 20}), 1)
    assert [verdict.success for verdict in ask("reasoning_gym", problem, entry["answer"])] == [True]


@pytest.mark.parametrize("name", ["n_queens", "countdown", "simple_integration", "polynomial_multiplication"])
def test_without_a_sandbox_scorers_that_evaluate_are_refused(no_bubblewrap, name):
    verifier = make_verifier("reasoning_gym")
    with pytest.raises(InputError, match=rf"^reasoning_gym {name}: .*install the package bubblewrap$"):
        problem_fault(verifier, of(name))
    with pytest.raises(InputError, match=f"reasoning_gym {name}: "):
        ask("reasoning_gym", of(name), "1")
    assert problem_fault(verifier, of("leg_counting")) is None


def test_without_a_sandbox_math_env_refuses_evaluating_scorers(no_bubblewrap):
    problem = of("countdown").model_copy(update={"prompt": "?", "answer": "1"})
    with pytest.raises(InputError, match="reasoning_gym countdown: "):
        MathEnvironment.problem_fault(MathSettings(), problem)


def test_missing_sandbox_refuses_the_run_when_problems_load(no_bubblewrap, tmp_path):
    fault = partial(problem_fault, make_verifier("reasoning_gym"))
    with pytest.raises(InputError, match=r"reasoning_gym n_queens: .*install the package bubblewrap"):
        load_problems(ProblemSource(dataset="reasoning_gym:n_queens?size=2"), tmp_path, problem_fault=fault)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not filter_program(processes=False), reason="no filter for this kind of processor")
def test_missing_sandbox_still_forbids_starting_processes(no_bubblewrap, make_problem, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "custom")
    monkeypatch.setattr(process_sandbox, "_PACKAGES", (*process_sandbox._PACKAGES, "bare"))

    async def run(expression):
        worker = await WorkerProcess.spawn(built_in=True)
        try:
            await worker.prepare("bare:Peek", {})
            request = {"problem": make_problem().model_dump(), "completion": expression, "limit_s": 9.0}
            return (await worker.request(frames.pack(request), 9.0))["verdict"]["answer"]
        finally:
            await worker.end()

    assert asyncio.run(run("attempt(os.fork)")) == "'Function not implemented'"


def test_environment_is_empty_without_a_sandbox(no_bubblewrap, monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    with process_sandbox.built_in_process("7") as (command, environment, files):
        assert (command[0].rpartition("/")[2][:6], files) == ("python", [])
    assert environment.pop("PYTHONHASHSEED") == "7"
    assert set(environment) == {"LANG", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"}


@pytest.mark.skipif(process_sandbox.sandbox_missing() is not None, reason="there is no bubblewrap here")
def test_only_editable_packages_are_mounted_from_outside_site_packages(monkeypatch, tmp_path):
    package = tmp_path / "beside" / "checked_out"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package.parent / "notes.txt").write_text("mine")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(process_sandbox, "_PACKAGES", ("rollmill", "checked_out"))
    settings = process_sandbox._settings({})
    assert str(package) in settings
    assert str(package.parent) not in settings
