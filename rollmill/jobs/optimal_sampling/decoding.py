"""Exact decoding of q with two models: every sample is drawn as if it were alone, and none waits for another.

Kernels of 16 bits round differently where a pass has another shape, and one token later that is another answer. So the
shape of a pass does not depend on which samples are in it: see `kv_cache`, and `_alike` for prompts.

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
    diagnostics: list[list[float]] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Decoder:
    """Draws answers from q with both models' keys and values kept, in batches that are always full.

    `drawing`: see `Drawer`. Raises `InputError` for values that cannot be.
    """

    def __init__(self, pair: Pair, *, batch_size: int = 8, max_new_tokens: int = 512, **drawing: Any) -> None:
        check(batch_size >= 1, "batch_size", batch_size, "1 or more")
        check(max_new_tokens >= 1, "max_new_tokens", max_new_tokens, "1 or more")
        self.pair, self.batch_size, self.max_new_tokens = pair, batch_size, max_new_tokens
        self._drawer = Drawer(**drawing, excluded=pair.excluded)

    def decode(self, samples: Iterable[SampleRequest]) -> Iterator[Decoded]:
        """Draw every sample; yield each when it is ready.

        When memory runs out the batch is halved, for good, and the samples in flight begin again, with the same tokens.
        Raises `InputError` for a prompt that `refusal` refuses, `RunStoppedError` for logits that are no numbers, and
        the error itself when memory does not suffice for one sample.
        """
        self._reset()
        waiting = _Waiting(samples)
        active: list[_ActiveSequence] = []
        try:
            while active or waiting:
                done: list[Decoded] = []
                if self._out_of_memory(active, waiting, done):
                    self._halve(len(active))
                    waiting.requeue([sequence.request for sequence in active])
                    active.clear()
                yield from done
        finally:
            self._reset()

    def refusal(self, request: SampleRequest) -> str | None:
        """Return why there is no answer to draw for a prompt; None where there is one."""
        return request.refusal(self.pair.longest)

    def _out_of_memory(self, active: list[_ActiveSequence], waiting: _Waiting, done: list[Decoded]) -> bool:
        """Take one step; return whether memory ran out in it. The error goes with all that its frames hold."""
        try:
            self._step(active, waiting, done)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.batch_size <= 1:
                raise
            return True
        return False

    def _halve(self, in_flight: int) -> None:
        before, self.batch_size = self.batch_size, max(min(self.batch_size, in_flight) // 2, 1)
        self._reset()
        _log.warning(
            "memory ran out with %d samples at once (batch %d): going on with %d", in_flight, before, self.batch_size
        )

    def _reset(self) -> None:
        for network in self.pair.networks:
            network.reset(self._least(network))
        if self.pair.device.type == "cuda":
            torch.cuda.empty_cache()

    def _least(self, network: Network) -> list[str]:
        """Return the adapters of the rows that every pass has: of a full batch; on a CPU two of each.

        With one row, or more than one, its kernels differ; above that they do not.
        """
        adapters = [side.adapter for side in (self.pair.theta, self.pair.t) if side.network is network]
        if self.pair.device.type == "cpu":
            return [*dict.fromkeys(adapters)] * 2
        return adapters * self.batch_size

    @torch.inference_mode()
    def _step(self, active: list[_ActiveSequence], waiting: _Waiting, done: list[Decoded]) -> None:
        """Admit newcomers to the free rows, with their first token; then draw one more token for every sequence."""
        note_progress()
        while waiting and len(active) < self.batch_size:
            newcomers = [self._activate(request) for request in waiting.take(self.batch_size - len(active))]
            active += newcomers
            for alike in self._alike(newcomers):
                self._draw(alike, *self._admit(alike))
            self._retire_finished(active, done)
        if active:
            self._compact(active)
            self._draw(active, *self._advance(active))
            self._retire_finished(active, done)

    def _activate(self, request: SampleRequest) -> _ActiveSequence:
        if why := self.refusal(request):
            raise InputError(f"the prompt of {request.key} {why}")
        room, longest = self.max_new_tokens, self.pair.longest
        if longest is not None:
            room = min(room, longest - request.longer)
        return _ActiveSequence(request, Uniforms(request.seed), room)

    def _alike(self, newcomers: list[_ActiveSequence]) -> list[list[_ActiveSequence]]:
        """Return the newcomers whose prompts are read together: none is padded for another.

        In 16 bits each alone, since the number of rows may decide which kernel runs; in 32, where that changes
        the seventh digit, those of one length.
        """
        if self.pair.used["dtype"] != "float32":
            return [[newcomer] for newcomer in newcomers]
        groups: dict[tuple[int, int], list[_ActiveSequence]] = {}
        for newcomer in newcomers:
            request = newcomer.request
            shape = len(request.prompt_ids_theta), len(request.prompt_ids_t)
            groups.setdefault(shape, []).append(newcomer)
        return list(groups.values())

    def _admit(self, newcomers: list[_ActiveSequence]) -> tuple[Tensor, Tensor]:
        """Read newcomers' prompts; return the logits after them of theta and of t, [n, vocabulary]."""
        pair = self.pair
        texts_theta = [sequence.request.prompt_ids_theta for sequence in newcomers]
        texts_t = [sequence.request.prompt_ids_t for sequence in newcomers]
        names_theta, names_t = ([side.adapter] * len(newcomers) for side in (pair.theta, pair.t))
        if not pair.shared:
            # Two sets of weights: each reads its own prompts, and row numbers are its own.
            rows_theta, theta = pair.theta.network.admit(texts_theta, names_theta)
            rows_t, t = pair.t.network.admit(texts_t, names_t)
        else:
            # One set of weights reads both sides' prompts in one pass, theta's first. One model with one prompt is one
            # distribution: t then has no row of its own, and uses theta's.
            needs_row = [not pair.same or list(a) != list(b) for a, b in zip(texts_theta, texts_t, strict=True)]
            texts = [*texts_theta, *(text for text, needs in zip(texts_t, needs_row, strict=True) if needs)]
            # t's adapter is the same for all: cutting the names at the number of texts gives every text its adapter.
            rows_theta, logits = pair.theta.network.admit(texts, [*names_theta, *names_t][: len(texts)])
            # Where in `texts`, and so in `logits`, t's row of each newcomer is: behind theta's, or theta's itself.
            behind_theta = iter(range(len(newcomers), len(texts)))
            indices = [next(behind_theta) if needs else index for index, needs in enumerate(needs_row)]
            rows_t = [rows_theta[index] for index in indices]
            theta = logits[: len(newcomers)]
            # The same tensor, not a copy, where both are one everywhere: the drawer then computes one distribution.
            t = logits[indices] if any(needs_row) else theta
        # Not strict: `rows_theta` goes on with t's rows where one set of weights has both.
        for sequence, row_theta, row_t in zip(newcomers, rows_theta, rows_t, strict=False):
            sequence.rows = row_theta, row_t
        return theta, t

    def _advance(self, active: list[_ActiveSequence]) -> tuple[Tensor, Tensor]:
        """Pass the last tokens through each network; return the logits of theta and of t, [n, vocabulary]."""
        logits = []
        for network in self.pair.networks:
            tokens = {row: sequence.tokens[-1] for sequence in active for row in self._rows(sequence, network)}
            logits.append(network.advance(tokens))
        rows_theta, rows_t = ([sequence.rows[side] for sequence in active] for side in (0, 1))
        theta = logits[0][rows_theta]
        return theta, theta if self.pair.shared and rows_theta == rows_t else logits[-1][rows_t]

    def _rows(self, sequence: _ActiveSequence, network: Network) -> set[int]:
        sides = (self.pair.theta.network, self.pair.t.network)
        return {row for row, home in zip(sequence.rows, sides, strict=True) if home is network}

    def _compact(self, active: list[_ActiveSequence]) -> None:
        moved = [network.compact() for network in self.pair.networks]
        for sequence in active:
            sequence.rows = moved[0][sequence.rows[0]], moved[-1][sequence.rows[1]]

    def _draw(self, sequences: list[_ActiveSequence], logits_theta: Tensor, logits_t: Tensor) -> None:
        """Draw one token of q for each sequence."""
        ids = self.pair.vocabulary
        theta = logits_theta[:, :ids]
        t = theta if logits_t is logits_theta else logits_t[:, :ids]
        uniforms = [sequence.uniforms[len(sequence.tokens)] for sequence in sequences]
        try:
            drawn = self._drawer.draw(theta, t, uniforms)
        except NoNumbersError as error:
            sequence = sequences[error.row]
            raise RunStoppedError(no_numbers(sequence.request.key, len(sequence.tokens))) from None
        for sequence, token, numbers, logprob in zip(
            sequences, drawn.tokens, drawn.diagnostics, drawn.logprobs, strict=True
        ):
            sequence.tokens.append(token)
            sequence.diagnostics.append(numbers)
            sequence.logprobs.append(logprob)

    def _retire_finished(self, active: list[_ActiveSequence], done: list[Decoded]) -> None:
        """Move the sequences that have ended to `done`, and free their rows."""
        unfinished = []
        for sequence in active:
            stop = sequence.tokens[-1] in self.pair.end_tokens
            if not stop and len(sequence.tokens) < sequence.room:
                unfinished.append(sequence)
                continue
            for network in self.pair.networks:
                network.release(list(self._rows(sequence, network)))
            ended = "stop" if stop else "length"
            diagnostics = by_field(sequence.diagnostics)
            done.append(Decoded(sequence.request.key, sequence.tokens, ended, diagnostics, sequence.logprobs))
        active[:] = unfinished


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
        """Return the next samples, at most `most` of them."""
        return [self._next.popleft() for _ in range(most) if self]

    def requeue(self, samples: Sequence[SampleRequest]) -> None:
        """Put samples in front of all others."""
        self._next.extendleft(reversed(samples))

    def _more(self) -> Iterator[SampleRequest]:
        for sample in self._samples:
            yield sample
            return
