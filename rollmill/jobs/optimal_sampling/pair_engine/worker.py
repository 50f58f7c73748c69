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
    """Serves one connection to its end."""
    with closing(PairSocket.to(argv[0])) as link:
        given = link.hear()
        engine = PairEngine(given["arguments"], given["adapters"])
        link.say({"ready": {"longest": engine.longest, "step_tokens": engine.step_tokens}})
        while True:
            try:
                asked = link.hear()
            except (EOFError, OSError):
                return
            if "job" in asked:
                serve(engine, link, asked)


def serve(engine: PairEngine, link: PairSocket, asked: dict[str, Any]) -> None:
    """Draws the samples of one message."""
    samples = [SampleRequest(**sample) for sample in asked["samples"]]
    before = engine.redone
    try:
        # What is heard meanwhile can only be that it is to stop.
        for decoded in engine.decode(Job(**asked["job"]), samples, link.has_more):
            link.say({"decoded": dataclasses.asdict(decoded)})
    except RollmillError as error:
        link.say({"failed": str(error)})
        return
    link.say({"done": {"redone": engine.redone - before}})


if __name__ == "__main__":
    main(sys.argv[1:])
