"""Requests to a served policy."""

import asyncio
import json

from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool


def answer_of(served, **request):
    """What a policy's model answers."""

    async def run():
        async with ChatClient(EndpointPool(served.endpoints), served.client) as client:
            body = json.dumps({"model": served.model, "messages": [], "seed": 0, **request}).encode()
            return (await client.complete(body)).text

    return asyncio.run(run())
