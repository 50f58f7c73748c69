"""Requests to chat servers, each with a client of its own."""

import asyncio

import orjson

from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool


def body(**fields):
    return orjson.dumps({"model": "scripted", "messages": [{"role": "user", "content": "q"}], "seed": 7} | fields)


def ask(*urls, content=None, count=1, together=True, **config):
    """`count` completions from servers; a failure as the value that it is. Then the client."""

    async def run():
        pool = EndpointPool([Endpoint(url) for url in urls])
        client = ChatClient(pool, ClientConfig(**config))
        async with client:
            requests = [client.complete(body() if content is None else content) for _ in range(count)]
            if together:
                answers = await asyncio.gather(*requests, return_exceptions=True)
            else:
                answers = [await request for request in requests]
        assert [e.outstanding for e in pool.endpoints] == [0] * len(urls)
        return answers, client

    return asyncio.run(run())


def ask_one(*urls, **settings):
    (answer,), client = ask(*urls, **settings)
    return answer, client
