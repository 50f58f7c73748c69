"""The `openai` SDK's asynchronous client, on its default httpx or on aiohttp."""

from __future__ import annotations

import asyncio
import time

from openai import AsyncOpenAI, DefaultAioHttpClient

from benchmarks.contenders.work import MAX_TOKENS, MODEL, TEMPERATURE, TOP_P, Work, parser, report, work_of


async def generate(work: Work, transport: str) -> float:
    """Return seconds for all requests."""
    http_client = DefaultAioHttpClient() if transport == "aiohttp" else None
    unsent = iter(enumerate(work.conversations))
    async with AsyncOpenAI(base_url=work.base_url, api_key="none", http_client=http_client) as client:

        async def worker() -> None:
            for seed, messages in unsent:
                answer = await client.chat.completions.create(
                    model=MODEL,
                    messages=messages,
                    temperature=TEMPERATURE,
                    top_p=TOP_P,
                    max_tokens=MAX_TOKENS,
                    seed=seed,
                )
                assert answer.choices[0].message.content

        started = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(work.in_flight)))
        return time.perf_counter() - started


def main() -> None:
    options = parser()
    options.add_argument("--transport", choices=["httpx", "aiohttp"], default="httpx")
    arguments = options.parse_args()
    work = work_of(arguments)
    report(requests=work.requests, seconds=asyncio.run(generate(work, arguments.transport)))


if __name__ == "__main__":
    main()
