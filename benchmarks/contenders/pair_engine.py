"""q* in a vLLM, and the same vLLM alone with as many rows: run with the interpreter that vLLM is installed in.

Takes one JSON object: `arguments` and `adapters` of the engine, `batches`, `tokens`, `prompt_tokens`, `methods`,
`repeat`. Prints one: for each batch, by name, the seconds of the best turn.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind

from rollmill.jobs.optimal_sampling.pair_engine.engine import Job, PairEngine
from rollmill.jobs.optimal_sampling.samples import SampleRequest

ALONE = "vLLM alone"
IDS = 40_000


def requests(batch: int, tokens: int) -> list[SampleRequest]:
    """Random prompts, another one for each side."""
    generator = torch.Generator().manual_seed(batch)
    prompts = torch.randint(100, IDS, (2, batch, tokens), generator=generator).tolist()
    return [SampleRequest(place, prompts[0][place], prompts[1][place], place) for place in range(batch)]


def alone(engine: PairEngine, asked: list[SampleRequest], tokens: int) -> int:
    """Ordinary sampling of the same prompts with the same adapters; the tokens that all rows gave."""
    params = SamplingParams(
        temperature=1.0, max_tokens=tokens, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
    )
    for place, request in enumerate(asked):
        for side, prompt in enumerate((request.prompt_ids_theta, request.prompt_ids_t)):
            given = {"prompt_token_ids": list(prompt)}
            engine.vllm.add_request(f"{place}-{side}", given, params, lora_request=engine.lora[side])
    made = 0
    while engine.vllm.has_unfinished_requests():
        made += sum(len(output.outputs[0].token_ids) for output in engine.vllm.step())
    return made


def mixed(engine: PairEngine, asked: list[SampleRequest], tokens: int, method: str) -> int:
    """Samples of q*; the tokens that all rows gave."""
    job = Job({"alpha_method": method, "diagnostics": True}, IDS, [], tokens, len(asked))
    return 2 * sum(len(one.token_ids) for one in engine.decode(job, asked))


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    engine = PairEngine(given["arguments"], given["adapters"])
    best: dict[int, dict[str, float]] = {}
    for batch in given["batches"]:
        asked = requests(batch, given["prompt_tokens"])
        calls: dict[str, Callable[[], int]] = {ALONE: lambda asked=asked: alone(engine, asked, given["tokens"])}
        for method in given["methods"]:
            calls[f"q*, {method}"] = lambda asked=asked, method=method: mixed(engine, asked, given["tokens"], method)
        seconds = defaultdict(list)
        for _ in range(given["repeat"]):
            for name, call in calls.items():
                began = time.perf_counter()
                made = call()
                seconds[name].append(time.perf_counter() - began)
                assert made == 2 * batch * given["tokens"]
        best[batch] = {name: min(times) for name, times in seconds.items()}
    assert engine.redone == 0
    print(json.dumps(best))


if __name__ == "__main__":
    main()
