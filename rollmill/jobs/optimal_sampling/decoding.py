"""Exact decoding of q with two models, by continuous batching: a sample does not depend on what else is in the batch.

16-bit kernels round differently where a forward pass has another shape, and one token later that is another answer. So
the shape of a pass does not depend on which samples are in it: see `kv_cache`, and `_group_by_shape` for prompts.

Imports torch.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from rollmill.errors import InputError, RunStoppedError
from rollmill.jobs.optimal_sampling.captured_passes import cuda_passes
from rollmill.jobs.optimal_sampling.device_copy import upload
from rollmill.jobs.optimal_sampling.network import Network
from rollmill.jobs.optimal_sampling.pair import Pair
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import (
    NonFiniteLogitsError,
    TokenSampler,
    Uniforms,
    by_field,
    check_setting,
    non_finite_message,
)
from rollmill.jobs.training.advice import is_out_of_memory
from rollmill.terminal.stall_watch import note_progress

_log = logging.getLogger(__name__)


@dataclass
class _ActiveSequence:
    """A sample that is being decoded."""

    request: SampleRequest
    uniforms: Uniforms
    max_tokens: int
    """Most tokens of the answer: the limit asked for, or what the models' context leaves."""
    rows: tuple[int, int] = (-1, -1)
    """Its row in the KV cache of theta's network, and in that of t's."""
    tokens: list[int] = field(default_factory=list)
    diagnostics: list[list[float]] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class Decoder:
    """Generates answers from q with KV caches of both models; a sample that ends is replaced by the next at once.

    `sampling` are arguments of `TokenSampler`. Raises `InputError` for values out of bounds.
    """

    def __init__(self, pair: Pair, *, batch_size: int = 8, max_new_tokens: int = 512, **sampling: Any) -> None:
        check_setting(batch_size >= 1, "batch_size", batch_size, "1 or more")
        check_setting(max_new_tokens >= 1, "max_new_tokens", max_new_tokens, "1 or more")
        self.pair, self.batch_size, self.max_new_tokens = pair, batch_size, max_new_tokens
        self._sampler = TokenSampler(**sampling, excluded=pair.excluded)
        self._sampler.passes = cuda_passes(pair.device, "the draw")

    def decode(self, samples: Iterable[SampleRequest]) -> Iterator[Decoded]:
        """Generate every sample; yield each when it is complete.

        When memory runs out, the batch is halved for good, and the samples in flight begin again; they get the same
        tokens. Raises `InputError` for a prompt that `refusal` refuses, `RunStoppedError` for logits that are not
        finite, and the error itself when memory does not suffice for one sample.
        """
        self._reset()
        waiting = _RequestQueue(samples)
        active: list[_ActiveSequence] = []
        try:
            while active or waiting:
                done: list[Decoded] = []
                if self._step_runs_out_of_memory(active, waiting, done):
                    self._halve_batch(len(active))
                    waiting.requeue([sequence.request for sequence in active])
                    active.clear()
                yield from done
        finally:
            self._reset()

    def refusal(self, request: SampleRequest) -> str | None:
        """Return the reason why a prompt cannot be answered; None where it can."""
        return request.refusal(self.pair.context_length)

    def _step_runs_out_of_memory(
        self, active: list[_ActiveSequence], waiting: _RequestQueue, done: list[Decoded]
    ) -> bool:
        """Take one step; return whether memory ran out in it.

        The error is not kept: its traceback refers to frames, and these to the tensors that fill the memory.
        """
        try:
            self._step(active, waiting, done)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or self.batch_size <= 1:
                raise
            return True
        return False

    def _halve_batch(self, in_flight: int) -> None:
        before, self.batch_size = self.batch_size, max(min(self.batch_size, in_flight) // 2, 1)
        self._reset()
        _log.warning(
            "memory ran out with %d samples at once (batch %d): going on with %d", in_flight, before, self.batch_size
        )

    def _reset(self) -> None:
        for network in self.pair.networks:
            network.reset(self._min_rows(network))
        if any(network.device.type == "cuda" for network in self.pair.networks):
            torch.cuda.empty_cache()  # of all GPUs

    def _min_rows(self, network: Network) -> list[str]:
        """Return the adapters of the rows that every pass has at least, idle or not: those of a full batch.

        On a CPU two of each adapter suffice: kernels for one row differ from those for several, but not with the
        number of several.
        """
        adapters = [side.adapter for side in (self.pair.theta, self.pair.t) if side.network is network]
        if network.device.type == "cpu":
            return [*dict.fromkeys(adapters)] * 2
        return adapters * self.batch_size

    @torch.inference_mode()
    def _step(self, active: list[_ActiveSequence], waiting: _RequestQueue, done: list[Decoded]) -> None:
        """Prefill new sequences in the free rows, with their first token; then draw one token for every sequence."""
        note_progress()
        while waiting and len(active) < self.batch_size:
            new_sequences = [self._activate(request) for request in waiting.take(self.batch_size - len(active))]
            active += new_sequences
            for group in self._group_by_shape(new_sequences):
                self._draw(group, *self._admit(group))
            # Some may end with their first token: their rows are filled again before the next pass.
            self._retire_finished(active, done)
        if active:
            self._compact(active)
            self._draw(active, *self._advance(active))
            self._retire_finished(active, done)

    def _activate(self, request: SampleRequest) -> _ActiveSequence:
        if refusal := self.refusal(request):
            raise InputError(f"the prompt of {request.key} {refusal}")
        max_tokens, context_length = self.max_new_tokens, self.pair.context_length
        if context_length is not None:
            max_tokens = min(max_tokens, context_length - request.longer_prompt)
        return _ActiveSequence(request, Uniforms(request.seed), max_tokens)

    def _group_by_shape(self, sequences: list[_ActiveSequence]) -> list[list[_ActiveSequence]]:
        """Group new sequences for prefill passes: no prompt is padded to the length of another.

        In 16 bits each is alone, since the number of rows may decide which kernel runs. In float32, where that changes
        the seventh digit, prompts of one length share a pass.
        """
        if self.pair.used["dtype"] != "float32":
            return [[sequence] for sequence in sequences]
        groups: dict[tuple[int, int], list[_ActiveSequence]] = {}
        for sequence in sequences:
            request = sequence.request
            shape = len(request.prompt_ids_theta), len(request.prompt_ids_t)
            groups.setdefault(shape, []).append(sequence)
        return list(groups.values())

    def _admit(self, sequences: list[_ActiveSequence]) -> tuple[Tensor, Tensor]:
        """Prefill new sequences; return the logits after their prompts, of theta and of t, [n, vocabulary]."""
        pair = self.pair
        texts_theta = [sequence.request.prompt_ids_theta for sequence in sequences]
        texts_t = [sequence.request.prompt_ids_t for sequence in sequences]
        names_theta, names_t = ([side.adapter] * len(sequences) for side in (pair.theta, pair.t))
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
            # Index in `texts`, and so in `logits`, of each sequence's row of t: behind theta's rows, or theta's itself.
            behind_theta = iter(range(len(sequences), len(texts)))
            indices = [next(behind_theta) if needs else index for index, needs in enumerate(needs_row)]
            rows_t = [rows_theta[index] for index in indices]
            theta = logits[: len(sequences)]
            # The same tensor, not a copy, where all rows are shared: the sampler then computes one distribution.
            t = _take_rows(logits, indices) if any(needs_row) else theta
        # Not strict: behind theta's rows, `rows_theta` has t's where one set of weights has both.
        for sequence, row_theta, row_t in zip(sequences, rows_theta, rows_t, strict=False):
            sequence.rows = row_theta, row_t
        return theta, t

    def _advance(self, active: list[_ActiveSequence]) -> tuple[Tensor, Tensor]:
        """Run a decoding pass of each network over the last tokens; return logits of theta and t, [n, vocabulary]."""
        logits = []
        for network in self.pair.networks:
            tokens = {row: sequence.tokens[-1] for sequence in active for row in self._rows(sequence, network)}
            logits.append(network.advance(tokens))
        rows_theta, rows_t = ([sequence.rows[side] for sequence in active] for side in (0, 1))
        theta = _take_rows(logits[0], rows_theta)
        return theta, theta if self.pair.shared and rows_theta == rows_t else _take_rows(logits[-1], rows_t)

    def _rows(self, sequence: _ActiveSequence, network: Network) -> set[int]:
        """Return the rows that a sequence has in a network: one, or two where both models share it."""
        owners = (self.pair.theta.network, self.pair.t.network)
        return {row for row, owner in zip(sequence.rows, owners, strict=True) if owner is network}

    def _compact(self, active: list[_ActiveSequence]) -> None:
        """Free unused rows of the KV caches, and follow the rows that have moved."""
        new_rows = [network.compact() for network in self.pair.networks]
        for sequence in active:
            # With one network, first and last are the same.
            sequence.rows = new_rows[0][sequence.rows[0]], new_rows[-1][sequence.rows[1]]

    def _draw(self, sequences: list[_ActiveSequence], logits_theta: Tensor, logits_t: Tensor) -> None:
        """Draw one token of q for each sequence."""
        size = self.pair.vocabulary
        theta = logits_theta[:, :size]
        # Of a model on another device, logits come over in one copy.
        t = theta if logits_t is logits_theta else logits_t[:, :size].to(theta.device, non_blocking=True)
        uniforms = [sequence.uniforms[len(sequence.tokens)] for sequence in sequences]
        try:
            step = self._sampler.draw(theta, t, uniforms)
        except NonFiniteLogitsError as error:
            sequence = sequences[error.row]
            raise RunStoppedError(non_finite_message(sequence.request.key, len(sequence.tokens))) from None
        for sequence, token, diagnostics, logprob in zip(
            sequences, step.tokens, step.diagnostics, step.logprobs, strict=True
        ):
            sequence.tokens.append(token)
            sequence.diagnostics.append(diagnostics)
            sequence.logprobs.append(logprob)

    def _retire_finished(self, active: list[_ActiveSequence], done: list[Decoded]) -> None:
        """Move the sequences that have ended to `done`, and free their rows."""
        unfinished = []
        for sequence in active:
            stop = sequence.tokens[-1] in self.pair.end_tokens
            if not stop and len(sequence.tokens) < sequence.max_tokens:
                unfinished.append(sequence)
                continue
            for network in self.pair.networks:
                network.release(list(self._rows(sequence, network)))
            reason = "stop" if stop else "length"
            diagnostics = by_field(sequence.diagnostics)
            done.append(Decoded(sequence.request.key, sequence.tokens, reason, diagnostics, sequence.logprobs))
        active[:] = unfinished


def _take_rows(logits: Tensor, rows: list[int]) -> Tensor:
    return logits.index_select(0, upload(rows, torch.long, logits.device))


class _RequestQueue:
    """Requests that wait: those that begin again, then the others, read from their source one at a time."""

    def __init__(self, samples: Iterable[SampleRequest]) -> None:
        self._samples = iter(samples)
        self._next: deque[SampleRequest] = deque()

    def __bool__(self) -> bool:
        """Return whether a request is left; reads one from the source if need be."""
        if not self._next:
            self._next.extend(islice(self._samples, 1))
        return bool(self._next)

    def take(self, most: int) -> list[SampleRequest]:
        """Return the next requests, at most `most` of them."""
        return [self._next.popleft() for _ in range(most) if self]

    def requeue(self, samples: Sequence[SampleRequest]) -> None:
        """Put requests in front of all others."""
        self._next.extendleft(reversed(samples))
