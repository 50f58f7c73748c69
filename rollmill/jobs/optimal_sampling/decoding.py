"""Exact decoding of q with two models: every sample is drawn as if it were alone, and none waits for another.

Imports torch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rollmill.errors import InputError, RunStoppedError
from rollmill.jobs.optimal_sampling.network import Network
from rollmill.jobs.optimal_sampling.pair import Pair
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import Drawer, NoNumbersError, Uniforms, by_field, check, no_numbers
from rollmill.jobs.training.advice import is_out_of_memory
from rollmill.terminal.stall_watch import note_progress

_log = logging.getLogger(__name__)


@dataclass
class _ActiveSequence:
    """A sample on its way."""

    request: SampleRequest
    uniforms: Uniforms
    room: int
    rows: tuple[int, int] = (-1, -1)
    """Its row in the network of theta, and in that of t."""
    tokens: list[int] = field(default_factory=list)
    told: list[list[float]] = field(default_factory=list)


class Decoder:
    """Draws answers from q with both models' keys and values kept, in batches that are always full.

    `drawing`: see `Drawer`. Raises `InputError` for values that cannot be.
    """

    def __init__(self, pair: Pair, *, batch_size: int = 8, max_new_tokens: int = 512, **drawing: Any) -> None:
        check(batch_size >= 1, "batch_size", batch_size, "1 or more")
        check(max_new_tokens >= 1, "max_new_tokens", max_new_tokens, "1 or more")
        self.pair, self.batch_size, self.max_new_tokens = pair, batch_size, max_new_tokens
        self._drawer = Drawer(**drawing)

    def decode(self, samples: Iterable[SampleRequest]) -> Iterator[Decoded]:
        """Draws every sample; gives them as they are ready.

        When memory runs out the batch is halved, for good, and the samples in flight begin again, with the same tokens.
        Raises `InputError` for a prompt that `refusal` refuses, `RunStoppedError` for logits that are no numbers, and
        the error itself when memory does not suffice for one sample.
        """
        waiting = _Waiting(samples)
        flights: list[_ActiveSequence] = []
        try:
            while flights or waiting:
                done: list[Decoded] = []
                if self._out_of_memory(flights, waiting, done):
                    self._halve(len(flights))
                    waiting.again([flight.request for flight in flights])
                    flights.clear()
                yield from done
        finally:
            self._reset()

    def refusal(self, request: SampleRequest) -> str | None:
        """Why there is no answer to draw for a prompt; None where there is one."""
        return request.refusal(self.pair.longest)

    def _out_of_memory(self, flights: list[_ActiveSequence], waiting: _Waiting, done: list[Decoded]) -> bool:
        """Whether memory ran out in one step. The error goes with all that its frames hold."""
        try:
            self._step(flights, waiting, done)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or len(flights) <= 1:
                raise
            return True
        return False

    def _halve(self, flying: int) -> None:
        self._reset()
        before, self.batch_size = self.batch_size, min(self.batch_size, flying) // 2
        _log.warning(
            "memory ran out with %d samples at once (batch %d): going on with %d", flying, before, self.batch_size
        )

    def _reset(self) -> None:
        for network in self.pair.networks:
            network.reset()
        if self.pair.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _step(self, flights: list[_ActiveSequence], waiting: _Waiting, done: list[Decoded]) -> None:
        """Newcomers take the places that are free, with their first token; then everyone gets one token more."""
        note_progress()
        while waiting and len(flights) < self.batch_size:
            newcomers = [self._flight(request) for request in waiting.take(self.batch_size - len(flights))]
            flights += newcomers
            self._draw(newcomers, *self._admit(newcomers))
            self._land(flights, done)
        if flights:
            self._compact(flights)
            self._draw(flights, *self._advance(flights))
            self._land(flights, done)

    def _flight(self, request: SampleRequest) -> _ActiveSequence:
        if why := self.refusal(request):
            raise InputError(f"the prompt of {request.key} {why}")
        room, longest = self.max_new_tokens, self.pair.longest
        if longest is not None:
            room = min(room, longest - request.longer)
        return _ActiveSequence(request, Uniforms(request.seed), room)

    def _admit(self, newcomers: list[_ActiveSequence]) -> tuple[Tensor, Tensor]:
        """Reads newcomers' prompts; the logits after them of theta and of t, [n, vocabulary]."""
        pair = self.pair
        texts_theta = [flight.request.prompt_ids_theta for flight in newcomers]
        texts_t = [flight.request.prompt_ids_t for flight in newcomers]
        names_theta, names_t = ([side.adapter] * len(newcomers) for side in (pair.theta, pair.t))
        if not pair.shared:
            rows_theta, theta = pair.theta.network.admit(texts_theta, names_theta)
            rows_t, t = pair.t.network.admit(texts_t, names_t)
        else:
            # One model with one prompt is one distribution: no row of its own for t.
            own = [not pair.same or list(a) != list(b) for a, b in zip(texts_theta, texts_t, strict=True)]
            texts = [*texts_theta, *(text for text, is_own in zip(texts_t, own, strict=True) if is_own)]
            rows_theta, logits = pair.theta.network.admit(texts, [*names_theta, *names_t][: len(texts)])
            second = iter(range(len(newcomers), len(texts)))
            places = [next(second) if is_own else place for place, is_own in enumerate(own)]
            rows_t = [rows_theta[place] for place in places]
            theta = logits[: len(newcomers)]
            t = logits[places] if any(own) else theta
        for flight, row_theta, row_t in zip(newcomers, rows_theta, rows_t, strict=False):
            flight.rows = row_theta, row_t
        return theta, t

    def _advance(self, flights: list[_ActiveSequence]) -> tuple[Tensor, Tensor]:
        """One pass of each network over the last tokens; the logits of theta and of t, [n, vocabulary]."""
        logits = []
        for network in self.pair.networks:
            tokens = {row: flight.tokens[-1] for flight in flights for row in self._rows(flight, network)}
            logits.append(network.advance([tokens[row] for row in range(len(tokens))]))
        rows_theta, rows_t = ([flight.rows[side] for flight in flights] for side in (0, 1))
        theta = logits[0][rows_theta]
        return theta, theta if self.pair.shared and rows_theta == rows_t else logits[-1][rows_t]

    def _rows(self, flight: _ActiveSequence, network: Network) -> set[int]:
        sides = (self.pair.theta.network, self.pair.t.network)
        return {row for row, home in zip(flight.rows, sides, strict=True) if home is network}

    def _compact(self, flights: list[_ActiveSequence]) -> None:
        moved = [network.compact() for network in self.pair.networks]
        for flight in flights:
            flight.rows = moved[0][flight.rows[0]], moved[-1][flight.rows[1]]

    def _draw(self, flights: list[_ActiveSequence], logits_theta: Tensor, logits_t: Tensor) -> None:
        """One token of q for each."""
        ids = self.pair.vocabulary
        theta = logits_theta[:, :ids]
        t = theta if logits_t is logits_theta else logits_t[:, :ids]
        uniforms = [flight.uniforms[len(flight.tokens)] for flight in flights]
        try:
            drawn = self._drawer.draw(theta, t, uniforms)
        except NoNumbersError as error:
            flight = flights[error.row]
            raise RunStoppedError(no_numbers(flight.request.key, len(flight.tokens))) from None
        for flight, token, numbers in zip(flights, drawn.tokens, drawn.told, strict=True):
            flight.tokens.append(token)
            flight.told.append(numbers)

    def _land(self, flights: list[_ActiveSequence], done: list[Decoded]) -> None:
        """Those that have ended leave, and their rows are free."""
        going = []
        for flight in flights:
            stop = flight.tokens[-1] in self.pair.end_tokens
            if not stop and len(flight.tokens) < flight.room:
                going.append(flight)
                continue
            for network in self.pair.networks:
                network.release(list(self._rows(flight, network)))
            ended = "stop" if stop else "length"
            done.append(Decoded(flight.request.key, flight.tokens, ended, by_field(flight.told)))
        flights[:] = going


class _Waiting:
    """Samples to come: those that begin again, then the others as they are wanted."""

    def __init__(self, samples: Iterable[SampleRequest]) -> None:
        self._samples = iter(samples)
        self._next: deque[SampleRequest] = deque()

    def __bool__(self) -> bool:
        if not self._next:
            self._next.extend(self._more())
        return bool(self._next)

    def take(self, most: int) -> list[SampleRequest]:
        """The next ones, up to so many."""
        return [self._next.popleft() for _ in range(most) if self]

    def again(self, samples: Sequence[SampleRequest]) -> None:
        """These come first."""
        self._next.extendleft(reversed(samples))

    def _more(self) -> Iterator[SampleRequest]:
        for sample in self._samples:
            yield sample
            return
