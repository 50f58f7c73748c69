"""Load balancing over endpoints with prefix cache affinity: requests with the same prompt go to the same endpoint."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Self, TypeAlias, TypeVar

from rollmill.errors import ServingError

CHAT_PATH = "/chat/completions"
WorkT = TypeVar("WorkT")
_OpenGroups: TypeAlias = dict[int, deque[tuple[str, Iterator[WorkT]]]]
"""Groups whose work is being taken, each with its remaining work, by `id` of their endpoint."""

_FIRST_REST_S = 1.0
_LONGEST_REST_S = 30.0
_FAILURES_IN_A_ROW = 3
_MOST_GROUPS = 65_536
_CONGESTION = re.compile(
    r"timeout|connection|http_(408|429|498|503|529)|"
    r"(\w+_)?(rate_?limit|request_limit|overload|throttl|too_many_requests|capacity_exceeded|resource_exhausted)\w*"
)
"""Types of failures that mean too much load; 529 is Anthropic's status for that, 498 Groq's."""


@dataclass(eq=False)
class Endpoint:
    """One OpenAI-compatible server.

    `recovering` and `fatal_error` are set by the server's watcher in another thread; everything else is used only from
    the event loop.
    """

    base_url: str
    """Address to which `/chat/completions` is appended, before a query: see `api_url`."""
    recovering: bool = False
    """Whether the server is being restarted, so that it is worth waiting for it."""
    fatal_error: str | None = None
    """The reason why the server will not be available again."""
    outstanding: int = 0
    """Requests in flight."""
    idle: int = 0
    """Open conversations between two requests."""
    failures: int = 0
    """Failed requests in a row, except those that the server answered."""
    rests_until: float = 0.0
    """Time until which no requests are sent, in seconds of `time.monotonic`."""

    @cached_property
    def chat_url(self) -> str:
        """Return the address of chat completions."""
        return api_url(self.base_url, CHAT_PATH)

    @property
    def load(self) -> int:
        """Return the number of conversations with the endpoint, in flight and between their turns."""
        return self.outstanding + self.idle

    def usable(self, now: float) -> bool:
        """Return whether a request may be sent now."""
        return self.fatal_error is None and not self.recovering and now >= self.rests_until

    def failed(self, *, refused: bool) -> None:
        """Record a failed request; pause the endpoint if it refused, or failed several times in a row."""
        now = time.monotonic()
        if now < self.rests_until:
            return  # one of many requests that failed together, which counts once
        self.failures += 1
        count = self.failures if refused else self.failures - _FAILURES_IN_A_ROW + 1
        if count > 0:
            self.rests_until = now + min(_LONGEST_REST_S, _FIRST_REST_S * 2.0 ** min(count - 1, 8))

    def answered(self) -> None:
        """Record that the endpoint answered, even if with an error."""
        self.failures = 0
        self.rests_until = 0.0


def is_congestion(type_: str) -> bool:
    """Return whether a type of failure means that the server is overloaded."""
    return _CONGESTION.fullmatch(type_) is not None


def api_url(base_url: str, path: str) -> str:
    """Return the address of an API path; the query of `base_url`, such as Azure's `api-version`, is kept at the end."""
    address, question, query = base_url.partition("?")
    return f"{address}{path}{question}{query}"


class EndpointPool:
    """Balances conversations over endpoints by load; used from one event loop.

    Conversations of a group have the same prompt, and go to one endpoint, whose prefix cache has it: the least loaded
    one when the group was new. If that endpoint is unusable, or far busier than the mean, the least loaded one takes
    the conversation. A conversation stays on its endpoint unless that fails.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            raise ValueError("a pool needs at least one endpoint")
        self.endpoints = tuple(endpoints)
        self._of_group: OrderedDict[str, Endpoint] = OrderedDict()
        self._claims: defaultdict[str, list[Endpoint]] = defaultdict(list)
        """Endpoints that were chosen for conversations which are not open yet, by group."""
        self.congested = 0
        """Requests so far that failed because an endpoint was overloaded: see `is_congestion`."""

    def pick(self) -> Endpoint | None:
        """Return the usable endpoint with the least load; None if none is usable now."""
        now = time.monotonic()
        best: Endpoint | None = None
        for endpoint in self.endpoints:
            if endpoint.usable(now) and (best is None or endpoint.load < best.load):
                best = endpoint
        return best

    def conversation(self, group: str) -> RoutedConversation:
        """Return a conversation of a group, as a context manager."""
        claims = self._claims.get(group)
        if not claims:
            return RoutedConversation(group)
        endpoint = claims.pop()
        if not claims:
            del self._claims[group]
        return RoutedConversation(group, endpoint)

    async def acquire(self, conversation: RoutedConversation | None = None) -> Endpoint:
        """Wait for a usable endpoint. Raises `ServingError` when all have failed for good."""
        while (endpoint := self._choose(conversation)) is None:
            if all(endpoint.fatal_error is not None for endpoint in self.endpoints):
                raise ServingError("; ".join(f"{e.base_url}: {e.fatal_error}" for e in self.endpoints))
            await asyncio.sleep(0.05)
        if conversation is not None:
            conversation.leave()
            conversation.endpoint = endpoint
        endpoint.outstanding += 1
        return endpoint

    def release(self, endpoint: Endpoint, conversation: RoutedConversation | None = None) -> None:
        """Record the end of a request, successful or not."""
        endpoint.outstanding -= 1
        if conversation is not None:
            endpoint.idle += 1

    def _choose(self, conversation: RoutedConversation | None) -> Endpoint | None:
        least = self.pick()
        if conversation is None or least is None or len(self.endpoints) == 1:
            return least
        now = time.monotonic()
        if conversation.endpoint is not None and conversation.endpoint.usable(now):
            return conversation.endpoint
        return self._endpoint_for(conversation.group, least, now)

    def _endpoint_for(self, group: str, least: Endpoint, now: float, *, deviations: float = 2.0) -> Endpoint:
        """Return the endpoint for a new conversation of a group: the group's, unless its load is far above the mean.

        Consistent hashing with bounded loads (Mirrokni et al., 2016, arXiv 1608.01350), with a table in place of the
        hash.

        Args:
            group: Identifies the prompt.
            least: The usable endpoint with the least load.
            now: Seconds of `time.monotonic`.
            deviations: Bound of the load above the mean, in standard deviations of a Poisson distribution.
        """
        home = self._home(group, least, now)
        loads = [endpoint.load for endpoint in self.endpoints if endpoint.usable(now)]
        # With the conversation itself, so that the mean is never 0.
        mean = (sum(loads) + 1) / max(len(loads), 1)
        return home if home.load < mean + deviations * math.sqrt(mean) else least

    def _home(self, group: str, least: Endpoint, now: float) -> Endpoint:
        """Return the endpoint of a group; where it has no usable one, `least` becomes its endpoint."""
        home = self._of_group.get(group)
        if home is None or not home.usable(now):
            home = self._of_group[group] = least
        self._of_group.move_to_end(group)  # the table forgets the group that was used least recently
        if len(self._of_group) > _MOST_GROUPS:
            self._of_group.popitem(last=False)
        return home

    def in_turns(self, groups: Iterable[tuple[str, Iterator[WorkT]]]) -> Iterator[WorkT]:
        """Yield the work of groups, interleaved so that load is even although each group stays on one endpoint.

        With a single endpoint, groups follow one another. Otherwise the next item belongs to a group of the least
        loaded endpoint; a new group is opened when that endpoint has none.
        """
        if len(self.endpoints) == 1:
            yield from chain.from_iterable(work for _, work in groups)
            return
        unopened = iter(groups)
        opened: _OpenGroups[WorkT] = {id(endpoint): deque() for endpoint in self.endpoints}
        while True:
            least = self.pick() or min(self.endpoints, key=lambda endpoint: endpoint.load)
            self._open_groups(least, unopened, opened)
            queue = self._queue_for(least, opened)
            if queue is None:
                return
            group, items = queue[0]
            work = next(items, None)
            if work is None:
                queue.popleft()
                continue
            # No new groups are left, and the least loaded endpoint has none: it takes work of the others' groups.
            self._claim(group, least, deviations=2.0 if queue is opened[id(least)] else 0.0)
            yield work

    def _claim(self, group: str, least: Endpoint, *, deviations: float) -> None:
        """Choose the endpoint of a group's next conversation, and count it as load before its first request.

        An agent first needs a sandbox, which may take seconds: without this, load would be outdated.
        """
        endpoint = self._endpoint_for(group, least, time.monotonic(), deviations=deviations)
        endpoint.idle += 1
        self._claims[group].append(endpoint)

    def _open_groups(
        self, least: Endpoint, unopened: Iterator[tuple[str, Iterator[WorkT]]], opened: _OpenGroups[WorkT]
    ) -> None:
        """Open new groups until the least loaded endpoint has one, or no new group is left."""
        while not opened[id(least)] and (group := next(unopened, None)) is not None:
            opened[id(self._home(group[0], least, time.monotonic()))].append(group)

    def _queue_for(self, least: Endpoint, opened: _OpenGroups[WorkT]) -> deque[tuple[str, Iterator[WorkT]]] | None:
        """Return the open groups of the least loaded endpoint that has any; None where none has."""
        if opened[id(least)]:
            return opened[id(least)]
        by_load = sorted(self.endpoints, key=lambda endpoint: endpoint.load)
        return next((opened[id(endpoint)] for endpoint in by_load if opened[id(endpoint)]), None)


class RoutedConversation:
    """The requests of one rollout, which go to one endpoint; a context manager.

    Args:
        group: Identifies the prompt that the conversation begins with.
        endpoint: The endpoint that was chosen before; None to choose one at the first request.
    """

    def __init__(self, group: str, endpoint: Endpoint | None = None) -> None:
        self.group = group
        self.endpoint = endpoint
        """The endpoint of the last request, or the one chosen for the first."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Stop counting the conversation as idle at its endpoint."""
        if self.endpoint is not None:
            self.endpoint.idle -= 1
