"""Sessions that generate with scripted servers."""

from rollmill.generation.chat import ChatRollouts
from rollmill.generation.progress import progress_of
from rollmill.generation.sampling import Sampling
from rollmill.generation.session import RolloutSession
from rollmill.inference.client import ChatClient, ClientConfig
from rollmill.inference.endpoints import Endpoint, EndpointPool
from rollmill.verifiers import VerifierPool
from tests.generation.run_factory import PLAIN


def asking(*urls, prompting=PLAIN, fatal_error=None, max_retries=0):
    endpoints = [url if isinstance(url, Endpoint) else Endpoint(url, fatal_error=fatal_error) for url in urls]
    return ChatRollouts(
        ChatClient(EndpointPool(endpoints), ClientConfig(max_retries=max_retries)),
        VerifierPool("numeric", accept_error=0.0),
        model="scripted",
        sampling=Sampling(max_tokens=100),
        prompting=prompting,
    )


def session(run, *urls, slots=4, **more):
    return RolloutSession(run, asking(*urls, **more), slots=slots, progress=progress_of(run))
