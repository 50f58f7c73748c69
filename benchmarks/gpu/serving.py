"""vLLM on the GPU: its start, the client over it, weights swapped while it runs, and the pair engine."""

from __future__ import annotations

import argparse
import json
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.contender_process import BARE, ENGINE, run_contender, scratch_folder
from benchmarks.contenders.work import MODEL
from benchmarks.gpu.ledger import Figures, Measurement, NotHereError
from benchmarks.gpu.subjects import SIZES, Size, Subjects, save_model
from benchmarks.gpu.timing import has_gpu

_PROMPT = "What is the last digit of 7?"
_ANSWER_S = 120.0
_DEVELOPMENT = {"VLLM_SERVER_DEV_MODE": "1"}
"""Environment with which vLLM has the routes that change weights."""


def serving(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of one server: its start, the client over it, and other weights in it while it runs."""
    size = _served(subjects)
    requests, in_flight = (32, 16) if size.name == "tiny" else (1024, 256)
    with ExitStack() as stack:
        server = _Server(subjects, size, stack)
        yield Measurement("start of a vLLM server", {"model": size.name}, lambda: {"ready_s": server.ready_s})
        settings = {"model": size.name, "requests": requests, "in_flight": in_flight}
        yield Measurement(
            "engine over a bare aiohttp loop", settings, lambda: _compare_clients(server.url, requests, in_flight)
        )
        yield Measurement("weights swapped in a running server", {"model": size.name}, lambda: _swap(server))


class _Server:
    """A server of a random model, started when it is first used, and ended with a stack."""

    def __init__(self, subjects: Subjects, size: Size, stack: ExitStack) -> None:
        self._subjects, self.size, self._stack = subjects, size, stack

    @cached_property
    def _running(self) -> tuple[str, float, Path]:
        """The server's address, the seconds of its start, and the model's folder.

        Raises `NotHereError` where there is no vLLM.
        """
        from rollmill.inference.server import ModelServer, ServerConfig

        _check_vllm()
        self._subjects.release()
        folder = self._stack.enter_context(scratch_folder())
        model = save_model(self.size, folder / "model")
        config = ServerConfig(environment=_DEVELOPMENT, max_restarts=0, arguments=("--max-model-len", "1024"))
        server = ModelServer(config, model_path=str(model), model_name=MODEL, log_path=folder / "log")
        began = time.perf_counter()
        self._stack.enter_context(server)
        return str(server.endpoint.base_url), round(time.perf_counter() - began, 1), model

    @property
    def url(self) -> str:
        """Its address."""
        return self._running[0]

    @property
    def ready_s(self) -> float:
        """The seconds of its start."""
        return self._running[1]

    @property
    def folder(self) -> Path:
        """The folder of its model."""
        return self._running[2]


def _compare_clients(url: str, requests: int, in_flight: int) -> Figures:
    """Measure the rates of a bare loop and of the engine, in turns of which the first of each warms up."""
    rates = {}
    for contender in (BARE, ENGINE, BARE, ENGINE):
        done = run_contender(contender, url, requests=requests, in_flight=in_flight)
        rates[contender.name] = done["requests"] / done["seconds"]
    bare, engine = rates[BARE.name], rates[ENGINE.name]
    return {
        "bare_per_s": round(bare, 2),
        "engine_per_s": round(engine, 2),
        "engine_of_bare": round(engine / bare, 3),
    }


def _swap(server: _Server) -> Figures:
    """Replace the weights on disk, have the server read them, and compare its answers."""
    served, took_s = server.folder, []
    with scratch_folder() as folder:
        other = save_model(server.size, folder / "other", seed=2)
        kept = shutil.copytree(served, folder / "kept")
        answers = [_greedy(server.url)]
        for source in (other, kept):
            for file in source.glob("*.safetensors"):
                # A new file, not new bytes in the old one, which the server has mapped.
                partial = served / f".{file.name}"
                shutil.copyfile(file, partial)
                partial.replace(served / file.name)
            began = time.perf_counter()
            _post(server.url, "/collective_rpc", {"method": "reload_weights"})
            _post(server.url, "/reset_prefix_cache", None)
            took_s.append(time.perf_counter() - began)
            answers.append(_greedy(server.url))
    if answers[1] == answers[0] or answers[2] != answers[0]:
        raise RuntimeError(f"the answers do not follow the weights: {answers}")
    return {"swap_s": round(min(took_s), 3), "first_swap_s": round(took_s[0], 3)}


def _greedy(url: str) -> str:
    """Return the most probable answer of the model that is served at an address."""
    body = {"model": MODEL, "prompt": _PROMPT, "max_tokens": 16, "temperature": 0}
    answer = _post(url, "/v1/completions", body)
    return str(answer["choices"][0]["text"])


def _post(url: str, path: str, body: dict[str, Any] | None) -> Any:
    """Send a request to the server, outside of its `/v1` too; return the JSON that it answers, if any."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url.removesuffix("/v1") + path, data=data, headers={"Content-Type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=_ANSWER_S) as response:
        text = response.read()
    return json.loads(text) if text.strip() else None


def pairs(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of the pair engine over vLLM alone."""
    size = _served(subjects)
    for name in ("base and adapter", "two prompts"):
        yield Measurement(
            "pair engine over vLLM alone", {"model": size.name, "pair": name}, lambda name=name: _pairs(subjects, name)
        )


def _pairs(subjects: Subjects, name: str) -> Figures:
    from benchmarks.optimal_sampling import make_adapter
    from benchmarks.optimal_sampling_vllm import ALONE, METHODS, measure
    from rollmill.jobs.optimal_sampling.model_spec import resolve_pair

    _check_vllm()
    size = _served(subjects)
    subjects.release()
    options = argparse.Namespace(batches=list(size.batches), tokens=size.tokens, repeat=2)
    with scratch_folder() as folder:
        model = save_model(size, folder / "model")
        adapter = str(make_adapter(folder / "adapter", model)) if name == "base and adapter" else None
        spec = resolve_pair(str(model), adapter_t=adapter)
        took = measure(spec, options, vocabulary=size.vocabulary)
    figures: Figures = {}
    for batch, by_name in took.items():
        for method in METHODS:
            seconds = by_name[f"q*, {method}"]
            figures[f"batch {batch}, {method}, of alone"] = round(by_name[ALONE] / seconds, 3)
            figures[f"batch {batch}, {method}, tokens_per_s"] = round(int(batch) * size.tokens / seconds, 1)
    return figures


def _served(subjects: Subjects) -> Size:
    """Return the size of the model that vLLM runs: saved, and loaded from disk."""
    return SIZES["tiny" if subjects.size.name == "tiny" else "0.6B"]


def _check_vllm() -> None:
    """Raise `NotHereError` where there is no vLLM that runs here."""
    from rollmill.errors import RollmillError
    from rollmill.inference.server import ServerConfig

    try:
        installed = ServerConfig().vllm()
    except RollmillError as error:
        raise NotHereError(str(error)) from error
    if has_gpu() and installed.build == "cpu":
        raise NotHereError(f"{installed.package} is built for the CPU")
