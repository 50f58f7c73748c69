"""Where requests go: those of one prompt to one endpoint, whose prefix cache holds it, and to all of them evenly."""

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
"""Groups whose work is being taken, each with the rest of it, by the id of their endpoint."""

_FIRST_REST_S = 1.0
_LONGEST_REST_S = 30.0
_FAILURES_IN_A_ROW = 3
_MOST_GROUPS = 65_536
_CONGESTION = re.compile(
    r"timeout|connection|http_(408|429|498|503|529)|"
    r"(\w+_)?(rate_?limit|request_limit|overload|throttl|too_many_requests|capacity_exceeded|resource_exhausted)\w*"
)
"""Types of failures, by status or by an error's own name inside an answer; 529 is Anthropic's status, 498 Groq's."""


@dataclass(eq=False)
class Endpoint:
    """One OpenAI-compatible server.

    A server's watcher, in another thread, sets `recovering` and `gone`; everything else belongs to the event loop.
    """

    base_url: str
    """What `/chat/completions` is put behind, in front of a query: see `api_url`."""
    recovering: bool = False
    """Being restarted: worth waiting for."""
    gone: str | None = None
    """Why it will not come back."""
    outstanding: int = 0
    idle: int = 0
    """Open conversations with it that wait for no answer just now."""
    failures: int = 0
    """Requests in a row that failed on the way."""
    rests_until: float = 0.0
    """Taken out until then, in `time.monotonic` seconds."""

    @cached_property
    def chat_url(self) -> str:
        """Return where requests go."""
        return api_url(self.base_url, CHAT_PATH)

    @property
    def load(self) -> int:
        """Return how much of the work it has: a conversation counts between its turns, too."""
        return self.outstanding + self.idle

    def usable(self, now: float) -> bool:
        """Return whether a request may be sent now."""
        return self.gone is None and not self.recovering and now >= self.rests_until

    def failed(self, *, refused: bool) -> None:
        """Note a failed request: take the endpoint out when it refused, or when it happened often in a row."""
        now = time.monotonic()
        if now < self.rests_until:
            return  # one of many that failed together: counted already
        self.failures += 1
        count = self.failures if refused else self.failures - _FAILURES_IN_A_ROW + 1
        if count > 0:
            self.rests_until = now + min(_LONGEST_REST_S, _FIRST_REST_S * 2.0 ** min(count - 1, 8))

    def answered(self) -> None:
        """Note that the endpoint answered, whatever it said."""
        self.failures = 0
        self.rests_until = 0.0


def is_congestion(type_: str) -> bool:
    """Tell whether a try failed because the server is asked more than it can do, by the failure's type."""
    return _CONGESTION.fullmatch(type_) is not None


def api_url(base_url: str, path: str) -> str:
    """Return the address of a path of the API; the query of `base_url`, such as Azure's `api-version`, stays."""
    address, question, query = base_url.partition("?")
    return f"{address}{path}{question}{query}"


class EndpointPool:
    """Balances requests over endpoints by their load; used from one event loop.

    A group's conversations go to one endpoint, the least loaded when it was new, as long as that one is usable and not
    far busier than the mean; else the least loaded takes that conversation. A conversation stays where it began unless
    that endpoint fails.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        if not endpoints:
            raise ValueError("a pool needs at least one endpoint")
        self.endpoints = tuple(endpoints)
        self._of_group: OrderedDict[str, Endpoint] = OrderedDict()
        self._claims: defaultdict[str, list[Endpoint]] = defaultdict(list)
        """Where conversations that are to be opened are counted already, by group."""
        self.congested = 0
        """Tries so far that an endpoint had no room for: refused as too many, timed out, cut off."""

    def pick(self) -> Endpoint | None:
        """Return the usable endpoint with the least load, if any is usable now."""
        now = time.monotonic()
        best: Endpoint | None = None
        for endpoint in self.endpoints:
            if endpoint.usable(now) and (best is None or endpoint.load < best.load):
                best = endpoint
        return best

    def conversation(self, group: str) -> RoutedConversation:
        """Return a conversation whose prompt begins as all of its group do; open it with `with`."""
        claims = self._claims.get(group)
        if not claims:
            return RoutedConversation(group)
        endpoint = claims.pop()
        if not claims:
            del self._claims[group]
        return RoutedConversation(group, endpoint)

    async def acquire(self, conversation: RoutedConversation | None = None) -> Endpoint:
        """Wait for a usable endpoint. Raises `ServingError` when every one is gone for good."""
        while (endpoint := self._choose(conversation)) is None:
            if all(endpoint.gone is not None for endpoint in self.endpoints):
                raise ServingError("; ".join(f"{e.base_url}: {e.gone}" for e in self.endpoints))
            await asyncio.sleep(0.05)
        if conversation is not None:
            conversation.leave()
            conversation.endpoint = endpoint
        endpoint.outstanding += 1
        return endpoint

    def release(self, endpoint: Endpoint, conversation: RoutedConversation | None = None) -> None:
        """Note that the request is over, well or not."""
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
        """Return the endpoint for a new conversation of a group: its own, unless that has far more than the mean.

        Consistent hashing with bounded loads (Mirrokni et al., 2016, arXiv 1608.01350), but for the hash. The bound is
        so many standard deviations over the mean as there would be if conversations came by chance.
        """
        home = self._home(group, least, now)
        loads = [endpoint.load for endpoint in self.endpoints if endpoint.usable(now)]
        mean = (sum(loads) + 1) / max(len(loads), 1)
        return home if home.load < mean + deviations * math.sqrt(mean) else least

    def _home(self, group: str, least: Endpoint, now: float) -> Endpoint:
        """Return the endpoint of a group; `least` from now on where it has none that is usable."""
        home = self._of_group.get(group)
        if home is None or not home.usable(now):
            home = self._of_group[group] = least
        self._of_group.move_to_end(group)
        if len(self._of_group) > _MOST_GROUPS:
            self._of_group.popitem(last=False)
        return home

    def in_turns(self, groups: Iterable[tuple[str, Iterator[WorkT]]]) -> Iterator[WorkT]:
        """Yield the work of groups so that each endpoint always has one of them open, and none waits for another's.

        With a single endpoint: group by group. Else the next piece is of a group of the least loaded endpoint: load is
        then even although groups stay together. A group is opened only when its turn comes.
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
            group, pieces = queue[0]
            work = next(pieces, None)
            if work is None:
                queue.popleft()
                continue
            # Where the least loaded has no group to take from, what is left of the others' is shared.
            self._claim(group, least, deviations=2.0 if queue is opened[id(least)] else 0.0)
            yield work

    def _claim(self, group: str, least: Endpoint, *, deviations: float) -> None:
        """Count a group's next conversation from now on: an agent first needs a sandbox before it asks for anything."""
        endpoint = self._endpoint_for(group, least, time.monotonic(), deviations=deviations)
        endpoint.idle += 1
        self._claims[group].append(endpoint)

    def _open_groups(
        self, least: Endpoint, unopened: Iterator[tuple[str, Iterator[WorkT]]], opened: _OpenGroups[WorkT]
    ) -> None:
        """Open groups until the least loaded endpoint has one, or none is left."""
        while not opened[id(least)] and (group := next(unopened, None)) is not None:
            opened[id(self._home(group[0], least, time.monotonic()))].append(group)

    def _queue_for(self, least: Endpoint, opened: _OpenGroups[WorkT]) -> deque[tuple[str, Iterator[WorkT]]] | None:
        """Return the open groups of the least loaded endpoint, or of the next that has some; None where none has."""
        if opened[id(least)]:
            return opened[id(least)]
        by_load = sorted(self.endpoints, key=lambda endpoint: endpoint.load)
        return next((opened[id(endpoint)] for endpoint in by_load if opened[id(endpoint)]), None)


class RoutedConversation:
    """Requests that belong together: the turns of one rollout, of one `group` of rollouts with the same prompt."""

    def __init__(self, group: str, endpoint: Endpoint | None = None) -> None:
        self.group = group
        self.endpoint = endpoint
        """Where the last turn went, or the first is to go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Count no longer between two turns at the endpoint."""
        if self.endpoint is not None:
            self.endpoint.idle -= 1
