"""A process that holds both models in one vLLM: `python -m ...pair_engine.worker SOCKET`.

Says JSON objects to whoever listens at the Unix socket, and is told some, one a message:

- first it is told `{"arguments": [...], "adapters": [theta, t]}` and says `{"ready": {"longest", "step_tokens"}}`;
- `{"job": {...}, "samples": [{...}]}` draws: `{"decoded": {...}}` for each sample, then `{"done": {"redone"}}`, or
  `{"failed": "why"}`;
- `{"stop": true}` in the middle ends that, with `done`.

It ends when the other end closes. Imports vLLM.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from rollmill.errors import RollmillError
from rollmill.jobs.optimal_sampling.pair_engine.engine import Job, PairEngine
from rollmill.jobs.optimal_sampling.pair_engine.link import PairSocket
from rollmill.jobs.optimal_sampling.samples import SampleRequest


def main(argv: Sequence[str]) -> None:
    """Serve one connection to its end."""
    with closing(PairSocket.to(argv[0])) as link:
        start = link.receive()
        engine = PairEngine(start["arguments"], start["adapters"])
        link.send({"ready": {"longest": engine.longest, "step_tokens": engine.step_tokens}})
        while True:
            try:
                message = link.receive()
            except (EOFError, OSError):
                return
            if "job" in message:
                serve(engine, link, message)


def serve(engine: PairEngine, link: PairSocket, message: dict[str, Any]) -> None:
    """Draw the samples of one message."""
    samples = [SampleRequest(**sample) for sample in message["samples"]]
    before = engine.redone
    try:
        # What is heard meanwhile can only be that it is to stop.
        for decoded in engine.decode(Job(**message["job"]), samples, link.has_more):
            link.send({"decoded": dataclasses.asdict(decoded)})
    except RollmillError as error:
        link.send({"failed": str(error)})
        return
    link.send({"done": {"redone": engine.redone - before}})


if __name__ == "__main__":
    main(sys.argv[1:])
