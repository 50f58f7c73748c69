"""Verification for a run: at hand for what is trusted, in worker processes for everything else."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import orjson
from pydantic import ValidationError

from rollmill.records import Problem, Verdict
from rollmill.verifiers import frames
from rollmill.verifiers.answer_tag import encodable
from rollmill.verifiers.failure import VerifierFailed, describe
from rollmill.verifiers.registry import BUILT_IN, is_trusted, make_verifier
from rollmill.verifiers.worker_process import WorkerProcess


class VerifierPool:
    """Verifies completions for one event loop; an asynchronous context manager.

    A trusted verifier is called in place. Any other runs in up to `workers` processes, started when they are first
    needed, one verification at a time in each; one that takes more than `time_limit_s` seconds, or kills its process,
    fails alone, and its worker is replaced. A worker's `problem` has been through JSON: tuples arrive as lists.
    Raises `InputError` as `make_verifier` does.
    """

    identity: dict[str, Any]
    """What determines the verdicts: `{"verifier": "numeric@1", "accept_error": 0.0}`."""

    def __init__(self, spec: str, *, accept_error: float, time_limit_s: float = 30.0, workers: int = 2) -> None:
        self._verifier = make_verifier(spec, accept_error=accept_error)
        self._trusted = is_trusted(self._verifier)
        self._spec = spec
        self._accept_error = accept_error
        self._time_limit_s = time_limit_s
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[WorkerProcess] = []
        self._workers: set[WorkerProcess] = set()
        self._closed = False
        named = f"{self._verifier.name}@{self._verifier.version}"
        self.identity = {
            "verifier": named if spec in BUILT_IN else f"{spec} ({named})",
            "accept_error": accept_error,
        }

    async def __aenter__(self) -> VerifierPool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        workers = list(self._workers)
        for worker in workers:
            worker.kill()
        await asyncio.gather(*(self._end(worker) for worker in workers))

    async def verify(self, problem: Problem, completion: str) -> Verdict:
        """The verdict on one completion; raises `VerifierFailed` where there is none."""
        if not self._trusted:
            return await self._verify_in_worker(problem, completion)
        try:
            return self._verifier.verify(problem, completion)
        except Exception as error:
            raise VerifierFailed("verifier_raised", describe(error)) from error

    async def _verify_in_worker(self, problem: Problem, completion: str) -> Verdict:
        frame = _request(problem, completion)
        async with self._slots:
            if self._closed:
                raise VerifierFailed("verifier_died", "the verifier pool is closed")
            worker = await self._worker()
            try:
                reply = await worker.ask(frame, self._time_limit_s)
            finally:
                if worker.usable:
                    self._idle.append(worker)
                else:
                    await self._end(worker)
        return _verdict(reply)

    async def _worker(self) -> WorkerProcess:
        """An idle worker, or a new one; those that died while idle cost nothing."""
        while self._idle:
            worker = self._idle.pop()
            if worker.usable:
                return worker
            await self._end(worker)
        worker = await WorkerProcess.spawn()
        self._workers.add(worker)
        try:
            if self._closed:
                raise VerifierFailed("verifier_died", "the verifier pool is closed")
            await worker.prepare(self._spec, self._accept_error)
        except BaseException:
            await self._end(worker)
            raise
        return worker

    async def _end(self, worker: WorkerProcess) -> None:
        try:
            await worker.end()
        finally:
            self._workers.discard(worker)


def _request(problem: Problem, completion: str) -> bytes:
    try:
        fields = orjson.Fragment(problem.model_dump_json())
        return frames.pack({"problem": fields, "completion": encodable(completion)})
    except Exception as error:
        message = f"{problem.instance_id}: the problem cannot be sent to a worker as JSON: {describe(error)}"
        raise VerifierFailed("verifier_raised", message) from error


def _verdict(reply: dict[str, Any]) -> Verdict:
    if "raised" in reply:
        raise VerifierFailed("verifier_raised", reply["raised"])
    try:
        return Verdict.model_validate(reply["verdict"])
    except ValidationError as error:
        raise VerifierFailed("verifier_raised", f"verify returned a broken Verdict: {describe(error)}") from error
