"""Canary secrets: servers require them, and tests then search for them in all output, files and databases."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from benchmarks.scripted_agents import SUBMIT, act
from rollmill.environments.search.index import FullTextIndex
from tests.inference.raw_server import RawServer

NAMES = (
    "endpoint", "sandbox", "evaluation", "search", "store_key", "store_secret",
    "VLLM_API_KEY", "HF_TOKEN", "ROLLMILL_SANDBOX_TOKEN", "ROLLMILL_EVALUATION_TOKEN", "ROLLMILL_SEARCH_TOKEN",
    "wrong_endpoint", "wrong_store",
)  # fmt: skip
SECRETS = {name: f"canary{uuid.uuid4().hex}" for name in NAMES}
SEEN = f"seen{uuid.uuid4().hex}"
"""Texts that are no secrets, and must be found by the same search, as a check of the search itself."""
LOOK = "env; cat /proc/*/environ; ls /root /home; cat /etc/passwd"
"""The command of an agent that searches for secrets in its sandbox."""


def guarded(name: str, answer: Callable[[bytes], bytes], used: set[str]) -> RawServer:
    """Serve requests that carry the secret; record that in `used`."""

    def check(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        received = {header.lower(): value for header, value in headers.items()}
        if received.get("authorization") != f"Bearer {SECRETS[name]}":
            return 401, b'{"detail": "not the right one"}'
        used.add(name)
        return 200, answer(body)

    return RawServer(check)


def chat(body: bytes) -> bytes:
    """A model with one fixed answer."""
    return _completion(body, ["<answer>1</answer>"])


def agent(body: bytes) -> bytes:
    """A model that searches for secrets and submits."""
    return _completion(body, [act(LOOK), act(SUBMIT)])


def _completion(body: bytes, answers: list[str]) -> bytes:
    if body == b"/v1/models":
        return b'{"data": [{"id": "scripted"}]}'
    before = sum(turn["role"] == "assistant" for turn in json.loads(body)["messages"])
    message = {"role": "assistant", "content": answers[before]}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}).encode()


def retriever(index: FullTextIndex) -> Callable[[bytes], bytes]:
    """Return a handler that answers searches from an index, as a search service does."""

    def answer(body: bytes) -> bytes:
        query = json.loads(body)
        result = index.search(query["queries"][0], query["topk"])
        documents = [
            {"document": {"id": document.id, "contents": f'"{document.title}"\n{document.text}'}, "score": 1}
            for document in result
        ]
        return json.dumps({"result": [documents]}).encode()

    return answer


def _tables(path: Path) -> Iterator[tuple[str, bytes]]:
    """Dump every table of a database with all its rows."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for name in names:
            values = [value for row in database.execute(f'SELECT * FROM "{name}"') for value in row]
            texts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
            yield f"{path.name}: {name}", b"\n".join(texts)


def collect_traces(folders: list[Path], outputs: dict[str, str], stored: dict[str, bytes]) -> dict[str, bytes]:
    """Collect all output, files and stored objects of runs, servers and services, by location."""
    left = {where: text.encode() for where, text in outputs.items()}
    left |= {f"s3: {name}": content for name, content in stored.items()}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                left[str(path)] = path.read_bytes()
            if path.suffix == ".db":
                left |= _tables(path)
    return left
