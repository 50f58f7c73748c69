import asyncio

import pytest

from rollmill.jobs.episodes.tools import VerifierPools
from rollmill.verifiers.failure import VerifierFailed
from tests.jobs.episodes.toy import problem


def test_an_abandoned_environment_cannot_verify():
    async def use():
        pools = VerifierPools()
        async with pools:
            verdict = await asyncio.to_thread(pools.verify, "numeric", problem("5"), "<answer>5</answer>")
        assert verdict.success
        with pytest.raises(VerifierFailed, match="the verifier pool is closed"):
            await asyncio.to_thread(pools.verify, "numeric", problem("5"), "<answer>5</answer>")

    asyncio.run(use())
