"""The upper limit: workers that only post a body with aiohttp and parse the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import aiohttp
import orjson

from benchmarks.contenders.work import MAX_TOKENS, MODEL, ROLLOUTS, TEMPERATURE, TOP_P, Work, parser, report, work_of
from rollmill.generation.identity import rollout_seed
from rollmill.inference.sampled_tokens import REQUEST_FIELDS


def bodies(work: Work) -> list[bytes]:
    """Return the request bodies, byte for byte as the engine sends them."""
    encoded = []
    for index, messages in enumerate(work.conversations):
        seed = rollout_seed(0, f"p{index // ROLLOUTS}", index % ROLLOUTS)
        body = {"model": MODEL, "messages": messages, "temperature": TEMPERATURE, "top_p": TOP_P}
        body |= {"max_tokens": MAX_TOKENS, "seed": seed, **(REQUEST_FIELDS if work.tokens else {})}
        encoded.append(orjson.dumps(body))
    return encoded


async def generate(work: Work, sent: list[bytes]) -> float:
    """Return seconds for all requests."""
    unsent: Iterator[bytes] = iter(sent)
    url = f"{work.base_url}/chat/completions"
    headers = {"Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

        async def worker() -> None:
            for body in unsent:
                async with session.post(url, data=body) as response:
                    answer = orjson.loads(await response.read())
                    assert answer["choices"][0]["message"]["content"]

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(work.in_flight)))
        return time.perf_counter() - started


def main() -> None:
    work = work_of(parser().parse_args())
    report(requests=work.requests, seconds=asyncio.run(generate(work, bodies(work))))


if __name__ == "__main__":
    main()
