"""q* in a vLLM, and the same vLLM alone with as many rows: run with the interpreter that vLLM is installed in.

Takes one JSON object: `arguments` and `adapters` of the engine, `batches`, `tokens`, `prompt_tokens`, `vocabulary`,
`methods`, `repeat`. Prints one: for each batch, by name, the seconds of the best turn.
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


def requests(batch: int, tokens: int, vocabulary: int) -> list[SampleRequest]:
    """Return random prompts, different ones for the two models.

    `batch` is their number, `tokens` their length; their ids are below `vocabulary`.
    """
    generator = torch.Generator().manual_seed(batch)
    prompts = torch.randint(100, vocabulary, (2, batch, tokens), generator=generator).tolist()
    return [SampleRequest(index, prompts[0][index], prompts[1][index], index) for index in range(batch)]


def alone(engine: PairEngine, samples: list[SampleRequest], tokens: int) -> int:
    """Sample the same prompts with the same adapters without q*; return the number of tokens of all rows."""
    params = SamplingParams(
        temperature=1.0, max_tokens=tokens, ignore_eos=True, detokenize=False, output_kind=RequestOutputKind.DELTA
    )
    for index, request in enumerate(samples):
        for side, prompt in enumerate((request.prompt_ids_theta, request.prompt_ids_t)):
            prompt_input = {"prompt_token_ids": list(prompt)}
            engine.vllm.add_request(f"{index}-{side}", prompt_input, params, lora_request=engine.lora[side])
    count = 0
    while engine.vllm.has_unfinished_requests():
        count += sum(len(output.outputs[0].token_ids) for output in engine.vllm.step())
    return count


def sample_mixture(engine: PairEngine, samples: list[SampleRequest], tokens: int, vocabulary: int, method: str) -> int:
    """Draw samples of q*; return the number of tokens of all rows.

    Args:
        engine: Has both models.
        samples: Prompts of both models.
        tokens: New tokens of each sample.
        vocabulary: Number of token ids that are drawn from.
        method: Of alpha.
    """
    job = Job({"alpha_method": method, "diagnostics": True}, vocabulary, [], tokens, len(samples))
    return 2 * sum(len(sample.token_ids) for sample in engine.decode(job, samples))


def main() -> None:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    engine = PairEngine(spec["arguments"], spec["adapters"])
    best: dict[int, dict[str, float]] = {}
    for batch in spec["batches"]:
        samples = requests(batch, spec["prompt_tokens"], spec["vocabulary"])
        calls: dict[str, Callable[[], int]] = {ALONE: lambda samples=samples: alone(engine, samples, spec["tokens"])}
        for method in spec["methods"]:
            calls[f"q*, {method}"] = lambda samples=samples, method=method: sample_mixture(
                engine, samples, spec["tokens"], spec["vocabulary"], method
            )
        seconds = defaultdict(list)
        for _ in range(spec["repeat"]):
            for name, call in calls.items():
                began = time.perf_counter()
                count = call()
                seconds[name].append(time.perf_counter() - began)
                assert count == 2 * batch * spec["tokens"]
        best[batch] = {name: min(times) for name, times in seconds.items()}
    assert engine.redone == 0
    print(json.dumps(best))


if __name__ == "__main__":
    main()
