"""A verifier, an environment, a sandbox kind, a data source and a producer are each added by one file."""

import os
import subprocess
import sys
from textwrap import dedent

import pytest

from tests.documentation.pages import ROOT

HELP = """
import contextlib, io, runpy, sys

def help_of(module, flag):
    sys.argv = [module, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    lines = text.getvalue().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"  --{flag} "))
    print(" ".join(" ".join(lines[first : first + 2]).split()))
"""


def python_block(title):
    """A file on the page about what is one's own."""
    page = (ROOT / "docs/how-to/your-own.md").read_text()
    return page.partition(f'```python title="{title}"\n')[2].partition("```")[0]


WORD_LIMIT = python_block("word_limit.py")


def lines_of(code, folder, *path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT])), "COLUMNS": "4000"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def run(tmp_path):
    """A function that adds a folder with one file to a room, and then runs a script; its lines."""

    def with_file(room, source, script):
        folder = tmp_path / "added"
        folder.mkdir()
        (folder / "added.py").write_text(dedent(source))
        code = f"import {room} as room\nroom.__path__.append({str(folder)!r})\n{HELP}{dedent(script)}"
        return lines_of(code, tmp_path)

    return with_file


def test_a_verifier_is_one_file(run):
    declared = """
from rollmill.verifiers.registry import VerifierEntry

ENTRY = VerifierEntry("word_limit", "WordLimit", "at most as many words", trusted=True)
"""
    script = """
    import asyncio
    from rollmill.jobs.rejection_sampling.parameters import RejectSampling
    from rollmill.records import Problem
    from rollmill.verifiers import VerifierPool

    async def judge():
        async with VerifierPool("word_limit", accept_error=0.0) as pool:
            verdict = await pool.verify(Problem(instance_id="p", prompt="?", answer="2"), "one two")
            print(pool.identity["verifier"], verdict.success)

    help_of("flows.reject_sampling", "verifier")
    form = RejectSampling.model_json_schema()["properties"]["verifier"]
    print(form["description"])
    print(RejectSampling(model_path="m", model_name="n", verifier="word_limit").verifier)
    asyncio.run(judge())
    """
    shown, form, command_line, judged = run("rollmill.verifiers", WORD_LIMIT + declared, script)
    assert "word_limit (at most as many words)" in shown
    assert "word_limit (at most as many words)" in form
    assert (command_line, judged) == ("word_limit", "word_limit@1 True")


def test_a_verifier_of_an_installed_package_works_in_a_worker(tmp_path):
    (tmp_path / "word_limit.py").write_text(WORD_LIMIT)
    installed = tmp_path / "word_limits-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: word-limits\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[rollmill.verifiers]\nword_limit = word_limit:WordLimit\n")
    script = """
    import asyncio
    from rollmill.records import Problem
    from rollmill.verifiers import VerifierPool

    async def judge():
        async with VerifierPool("word_limit", accept_error=0.0) as pool:
            verdict = await pool.verify(Problem(instance_id="p", prompt="?", answer="2"), "one two three")
            print(pool.identity["verifier"], verdict.success, len(pool._workers))

    help_of("flows.improve", "verifier")
    asyncio.run(judge())
    """
    shown, judged = lines_of(HELP + dedent(script), tmp_path, tmp_path)
    assert "word_limit (of the package word-limits)" in shown
    assert judged == "word_limit (word_limit@1) False 1"


def test_an_environment_is_one_file(run):
    declared = """
from rollmill.environments.registry import EnvironmentEntry

ENTRY = EnvironmentEntry("guessing", "Guessing", "guess a number", success="the number is found")
"""
    script = """
    from rollmill.environments.registry import find_environment
    from rollmill.environments.tools import Tools
    from rollmill.generation.job import opened_run
    from rollmill.jobs.episodes.job import jobs
    from rollmill.jobs.episodes.parameters import CollectEpisodes

    help_of("flows.collect_episodes", "env_name")
    with open("numbers.jsonl", "w") as file:
        file.write('{"id": "n", "prompt": "Guess.", "answer": 25}')
    asked = CollectEpisodes(
        model_path="oracle", env_name="guessing", dataset="numbers.jsonl", num_episodes=2, output_dir="run"
    )
    with opened_run(*jobs(asked)) as run:
        print(run.manifest.identity.generation["environment"]["name"])
        problem = next(run.problems())
    kind = find_environment("guessing")
    world = kind.make(problem, 0, kind.Settings(), Tools())
    world.agents["guesser"].act(world.agents["guesser"].oracle())
    print(world.success)
    """
    example = (ROOT / "examples/python/own_environment.py").read_text()
    shown, name, success = run("rollmill.environments", example + declared, script)
    assert "guessing (guess a number)" in shown
    assert (name, success) == ("guessing", "True")


def test_a_producer_of_rollouts_is_one_file(run):
    source = """
    from rollmill.corpus.producer import ProducerEntry

    ENTRY = ProducerEntry("diary", "Diary", "what a person wrote down")

    class Diary:
        def recognizes(self, document):
            return isinstance(document, dict) and "day" in document

        def rollouts(self, document, origin):
            messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": document["day"]}]
            yield {"instance_id": origin.generated_id, "messages": messages}
    """
    script = """
    from pathlib import Path
    from rollmill.corpus.corpus import read_corpus

    Path("may.jsonl").write_text('{"day": "sun"}')
    print(read_corpus(["may.jsonl"]).table["instance_id"][0])
    """
    assert run("rollmill.corpus.producers", source, script) == ["may"]


def test_a_kind_of_sandboxes_is_one_file(run):
    source = """
    from rollmill.sandboxes.registry import SandboxEntry
    from rollmill.sandboxes.sandbox import Execution
    from rollmill.sandboxes.started import StartedSandboxes

    ENTRY = SandboxEntry("echo", "EchoHost", "what repeats a command")


    class EchoHost(StartedSandboxes):
        @classmethod
        def from_settings(cls, settings):
            return cls()

        def start(self, spec):
            return self._add(Echo(spec))


    class Echo:
        id = "echo"

        def __init__(self, spec):
            self._spec = spec

        def execute(self, command, **_):
            return Execution(output=f"{self._spec.image}: {command.rpartition(' ')[2]}", returncode=0)

        def close(self):
            pass
    """
    script = """
    from contextlib import ExitStack
    from rollmill.jobs.agent_rollouts.job import AgentRolloutsJob
    from rollmill.jobs.agent_rollouts.parameters import AgentRollouts
    from rollmill.jobs.episodes.parameters import CollectEpisodes
    from rollmill.jobs.episodes.tools import open_tools
    from rollmill.sandboxes.registry import open_host
    from rollmill.sandboxes.sandbox import SandboxSpec
    from rollmill.services.sandbox import SandboxServiceOptions, host_settings

    help_of("flows.collect_episodes", "sandbox")
    help_of("rollmill.services.sandbox", "sandbox")
    print(AgentRollouts.model_json_schema()["properties"]["sandbox"]["enum"])
    agents = AgentRollouts(model="m", dataset="d.json", output="out.json", sandbox="echo")
    sandbox = AgentRolloutsJob.of(agents).sandbox_host(None).start(SandboxSpec(image="i"))
    print(agents.sandbox_kind, sandbox.execute("say true").output)
    episodes = CollectEpisodes(model_path="m", sandbox="echo", sandbox_image="python:3")
    with ExitStack() as closing:
        tools = open_tools(episodes, {"python"}, None, closing, sandboxes=None, search=None)
        print(tools.python.run("print(7)").output)
    service = SandboxServiceOptions(backend="echo")
    print(type(open_host(service.sandbox, host_settings(service))).__name__)
    """
    shown, service_help, form, agents, episodes, service = run("rollmill.sandboxes", source, script)
    assert "{bubblewrap,docker,echo,remote}" in shown
    assert "echo (what repeats a command)" in shown
    assert "{bubblewrap,docker,echo}" in service_help
    assert form == "['bubblewrap', 'docker', 'echo', 'remote']"
    assert (agents, episodes, service) == ("echo i: true", "python:3: /tmp/program.py", "EchoHost")


def test_a_data_source_is_one_file(run):
    source = """
    from pathlib import Path

    from rollmill.jobs.improvement.data_sources import SourceEntry, SourceKind
    from rollmill.jobs.improvement.sources.existing import Existing

    ENTRY = SourceEntry("latest", "SOURCE", "the latest file of a folder", value="FOLDER")


    def latest(given):
        return [str(max(Path(given.input[0]).iterdir()))]


    SOURCE = SourceKind(
        model=Existing,
        plan=lambda settings, name, context: Existing(**settings),
        inputs=latest,
        contaminated=lambda given, held_out: held_out.find_in_conversations(latest(given)),
        exists=True,
    )
    """
    script = r"""
    from pathlib import Path
    from rollmill.corpus.corpus import read_corpus
    from rollmill.jobs.improvement.parameters import Improve

    help_of("flows.improve", "feed")
    Path("days").mkdir()
    Path("days/1.jsonl").write_text('{"instance_id": "old", "completion": "a", "reward": 1.0}\n')
    Path("days/2.jsonl").write_text('{"instance_id": "new", "completion": "b", "reward": 1.0}\n')
    [planned] = Improve(model_path="m", held_out="h", feed=["latest=days"]).plan_sources(1, "m")
    print(planned.name, planned.is_generated, read_corpus(planned.inputs).table["instance_id"].to_list())
    """
    shown, planned = run("rollmill.jobs.improvement.sources", source, script)
    assert "latest=FOLDER (the latest file of a folder)" in shown
    assert planned == "latest_1 False ['new']"
