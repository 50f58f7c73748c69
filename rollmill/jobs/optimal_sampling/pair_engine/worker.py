"""Worker process with both models in one vLLM: `python -m ...pair_engine.worker SOCKET`.

Connects to a Unix socket. Messages are JSON objects:

- It first receives `{"arguments": [...], "adapters": [theta, t]}`, and answers `{"ready": {"longest", "step_tokens"}}`,
  or `{"failed": "message"}` for arguments with which it does not start.
- To `{"job": {...}, "samples": [{...}]}` it answers `{"decoded": {...}}` for each sample, then `{"done": {"redone"}}`,
  or `{"failed": "message"}`.
- `{"stop": true}` during a job ends the job, with `done`.

The process ends when the other end closes the socket. Imports vLLM.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from rollmill.errors import InputError, RollmillError
from rollmill.jobs.optimal_sampling.pair_engine.engine import Job, PairEngine
from rollmill.jobs.optimal_sampling.pair_engine.link import PairSocket
from rollmill.jobs.optimal_sampling.samples import SampleRequest


def main(argv: Sequence[str]) -> None:
    """Serve one connection to its end."""
    with closing(PairSocket.to(argv[0])) as link:
        start = link.receive()
        try:
            engine = PairEngine(start["arguments"], start["adapters"])
        except InputError as error:
            link.send({"failed": str(error)})
            return
        link.send({"ready": {"longest": engine.context_length, "step_tokens": engine.step_tokens}})
        while True:
            try:
                message = link.receive()
            except (EOFError, OSError):
                return
            if "job" in message:
                serve(engine, link, message)


def serve(engine: PairEngine, link: PairSocket, message: dict[str, Any]) -> None:
    """Run the job of one message."""
    samples = [SampleRequest(**sample) for sample in message["samples"]]
    before = engine.redone
    try:
        # Any message that arrives during a job is its `stop`; a closed socket stops it, too.
        for decoded in engine.decode(Job(**message["job"]), samples, link.has_message):
            link.send({"decoded": dataclasses.asdict(decoded)})
    except RollmillError as error:
        link.send({"failed": str(error)})
        return
    link.send({"done": {"redone": engine.redone - before}})


if __name__ == "__main__":
    main(sys.argv[1:])
