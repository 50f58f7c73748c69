"""No secret is anywhere but where it belongs: each one is planted, used and refused, and then looked for."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from benchmarks.scripted_agents import CONFIG, SUBMIT, act
from rollmill.environments.search.environment import OWN_QUESTIONS
from rollmill.environments.search.index import open_index
from tests.files.s3 import S3Server
from tests.flows.conftest import Job, journal_lines, script, write_problems
from tests.flows.test_agent_rollouts import FOLDER, service
from tests.flows.test_storage import save_blocks
from tests.serving.raw_server import RawServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

NAMES = (
    "endpoint", "sandbox", "evaluation", "search", "store_key", "store_secret",
    "VLLM_API_KEY", "HF_TOKEN", "ROLLMILL_SANDBOX_TOKEN", "ROLLMILL_EVALUATION_TOKEN", "ROLLMILL_SEARCH_TOKEN",
    "wrong_endpoint", "wrong_store",
)  # fmt: skip
SECRETS = {name: f"canary{uuid.uuid4().hex}" for name in NAMES}
SEEN = f"seen{uuid.uuid4().hex}"
"""What is no secret, and must be found wherever secrets are looked for."""
LOOK = "env; cat /proc/*/environ; ls /root /home; cat /etc/passwd"
"""What an agent that looks for secrets runs in its sandbox."""

Answer = Callable[[dict[str, str], bytes], tuple[int, bytes]]


def guarded(name: str, answer: Callable[[bytes], bytes], used: set[str]) -> RawServer:
    """A server that answers who has the secret; `used` notes that somebody had."""

    def check(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        given = {header.lower(): value for header, value in headers.items()}
        if given.get("authorization") != f"Bearer {SECRETS[name]}":
            return 401, b'{"detail": "not the right one"}'
        used.add(name)
        return 200, answer(body)

    return RawServer(check)


def chat(body: bytes) -> bytes:
    if body == b"/v1/models":
        return b'{"data": [{"id": "scripted"}]}'
    message = {"role": "assistant", "content": "<answer>1</answer>"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()


def tables(path: Path) -> Iterator[tuple[str, bytes]]:
    """Every table of a database, and all that its rows hold."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            values = [value for row in database.execute(f'SELECT * FROM "{name}"') for value in row]
            texts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
            yield f"{path.name}: {name}", b"\n".join(texts)


def all_that_is_left(folders: list[Path], said: dict[str, str], s3: S3Server) -> Iterator[tuple[str, bytes]]:
    """Everything that runs, servers and services have left anywhere: (where, bytes)."""
    yield from ((where, text.encode()) for where, text in said.items())
    yield from ((f"s3: {name}", content) for name, content in s3.held().items())
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()
            if path.suffix == ".db":
                yield from tables(path)


def runs(sandboxes: str, evaluations: str) -> dict[str, tuple[str, list[str]]]:
    """Flow and arguments of each run, by its name; `fails_...` fail."""
    sampling = ["--model_path", "scripted", "--dataset", "problems.jsonl", "--num_rollout", "2", "--no_canary"]
    good = [*sampling, "--endpoint_block", "good"]
    agents = ["generate-multi", "--dataset", str(FOLDER / "dataset.json"), "--max-tasks", "1", "--config", CONFIG]
    agents += ["--model", "m", *script(conversations=[{"answers": [act(LOOK), act(SUBMIT)]}])]
    episodes = ["--env_name", "search_env", "--model_path", "oracle", "--num_episodes", "3"]
    return {
        "sampling": ("reject_sampling", [*good, "--model_name", SEEN, "--store_block", "good"]),
        "fails_store": ("reject_sampling", [*good, "--model_name", "store", "--store_block", "wrong"]),
        "fails_endpoint": ("reject_sampling", [*sampling, "--model_name", "endpoint", "--endpoint_block", "wrong"]),
        "fails_hub": ("reject_sampling", [*sampling, "--model_name", "hub", "--dataset", "nobody/nothing"]),
        "agents": (
            "agent_rollouts",
            [*agents, "--output", "a.json", "--sandbox_block", "good", "--eval_block", "good"],
        ),
        "fails_agents": (
            "agent_rollouts",
            [*agents, "--output", "b.json", "--docker-server", sandboxes, "--eval-server", evaluations],
        ),
        "episodes": ("collect_episodes", [*episodes, "--dataset", str(OWN_QUESTIONS), "--search_block", "good"]),
    }


def test_no_secret_is_left_anywhere(tmp_path: Path, sandboxes: Path, stand_in: dict[str, str]) -> None:
    used: set[str] = set()
    write_problems(tmp_path / "problems.jsonl", 4)
    own = {"ROLLMILL_SANDBOX_TOKEN": SECRETS["sandbox"], "ROLLMILL_EVALUATION_TOKEN": SECRETS["evaluation"]}
    there = stand_in | own | {"TMPDIR": str(sandboxes)}
    with ExitStack() as stack:
        index = stack.enter_context(open_index(""))

        def retrieve(body: bytes) -> bytes:
            asked = json.loads(body)
            found = index.search(asked["queries"][0], asked["topk"])
            documents = [
                {"document": {"id": one.id, "contents": f'"{one.title}"\n{one.text}'}, "score": 1} for one in found
            ]
            return json.dumps({"result": [documents]}).encode()

        s3 = stack.enter_context(S3Server(SECRETS["store_key"], SECRETS["store_secret"]))
        endpoint = stack.enter_context(guarded("endpoint", chat, used))
        search = stack.enter_context(guarded("search", retrieve, used))
        hub = stack.enter_context(guarded("HF_TOKEN", lambda _: b"[]", used))
        images = ["--images", str(FOLDER / "images")]
        at = stack.enter_context(service("sandbox", *images, log=tmp_path / "sandbox.log", environment=there))
        graded = ["--sandbox_server", at, "--dataset", str(FOLDER / "dataset.json")]
        grader = service("evaluation", *graded, log=tmp_path / "evaluation.log", environment=there)
        addresses = (at, stack.enter_context(grader))

        store = {"url": "s3://results", "endpoint_url": s3.url, "key": s3.key, "secret": s3.secret}
        save_blocks(
            stand_in,
            ("inference-endpoint", "good", {"base_urls": [endpoint.base_url], "api_key": SECRETS["endpoint"]}),
            ("inference-endpoint", "wrong", {"base_urls": [endpoint.base_url], "api_key": SECRETS["wrong_endpoint"]}),
            ("sandbox-service", "good", {"address": addresses[0], "token": SECRETS["sandbox"]}),
            ("evaluation-service", "good", {"address": addresses[1], "token": SECRETS["evaluation"]}),
            ("search-service", "good", {"address": search.base_url[:-3], "token": SECRETS["search"]}),
            ("result-store", "good", store),
            ("result-store", "wrong", store | {"secret": SECRETS["wrong_store"]}),
        )
        given = {name: value for name, value in SECRETS.items() if name.isupper()}
        given |= {"TMPDIR": str(sandboxes), "HF_ENDPOINT": hub.base_url[:-3], "HF_HOME": str(tmp_path / "hub")}
        given["HF_HUB_OFFLINE"] = "0"  # other tests keep off the hub
        running: dict[str, subprocess.Popen[str]] = {}
        for name, (flow, arguments) in runs(*addresses).items():
            running[name] = Job(flow, tmp_path, stand_in).start(*arguments, **given)
        said = {name: "".join(process.communicate(timeout=400)) for name, process in running.items()}
        for name, process in running.items():
            assert (process.returncode != 0) == name.startswith("fails_"), said[name]
            assert "Traceback" not in said[name], said[name]
        home = Path(stand_in["PREFECT_HOME"])
        left = dict(all_that_is_left([tmp_path, sandboxes, home], said, s3))

    assert used == {"endpoint", "search", "HF_TOKEN"}
    where_seen = {where for where, content in left.items() if SEEN.encode() in content}
    database = {f"prefect.db: {table}" for table in ("flow_run", "log", "artifact")}
    run = f"reject_sampling_results/{SEEN}"
    files = {str(tmp_path / run / name) for name in ("manifest.json", "statistics.txt", "reject_sampling_results.json")}
    assert where_seen >= {"sampling", f"s3: {run}/statistics.txt"} | database | files
    looked = b"".join(journal_lines(tmp_path / "a"))
    assert b"PATH=" in looked, "the agent has looked at its environment"
    assert left["prefect.db: block_document"].count(b"good") >= 5
    for name, secret in SECRETS.items():
        assert [where for where, content in left.items() if secret.encode() in content] == [], name
