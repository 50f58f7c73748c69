"""Forward passes of one set of weights over the rows of a KV cache.

Imports torch, transformers and, for rows with different adapters, PEFT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from rollmill.errors import InputError
from rollmill.jobs.optimal_sampling.captured_passes import cuda_passes
from rollmill.jobs.optimal_sampling.device_copy import upload
from rollmill.jobs.optimal_sampling.kv_cache import RowCache

BASE = "__base__"
"""PEFT's name for no adapter."""


class Network:
    """One set of weights with the KV cache of the sequences that it decodes.

    A row's logits do not depend on the other rows, to the bit, if the kernels compute each row of a matrix
    independently of the others.

    Args:
        model: A model of transformers, perhaps with PEFT's adapters.
        name: The model's name in messages.
        mixed: Whether rows have different adapters; else all have the active one.
    """

    def __init__(self, model: Any, name: str, *, mixed: bool = False) -> None:
        self.model, self.name = model.eval(), name
        self._pass_adapters: list[str] = []
        if mixed:
            _use_row_adapters(model, self._pass_adapters)
        self.device: torch.device = model.device
        self.ids: int = model.get_output_embeddings().weight.shape[0]
        """Number of logits."""
        self._layers, self.context_length, self._window = _read_limits(model, name)
        # From a mask of rows, transformers makes that of all heads itself, and first looks whether it hides anything:
        # then the host waits, and another kernel runs for a batch that happens to fill its width.
        self._takes_whole_mask = model.config.get_text_config(decoder=True)._attn_implementation == "sdpa"
        # PEFT picks the rows of each adapter on the host.
        self._passes = None if mixed else cuda_passes(self.device, name)
        self.reset()

    def reset(self, least: Sequence[str] = ()) -> None:
        """Drop all rows, and free their memory.

        Every decoding pass has at least rows with these adapters; those that no sequence uses run idle.
        """
        self._min_adapters = Counter(least)
        self._cache = RowCache(self._layers, self.device, least_rows=len(least), window=self._window)
        self._adapters: list[str] = []
        self._arrangement = -1
        """The cache's, for which passes are captured."""

    def admit(self, prompts: Sequence[Sequence[int]], adapters: Sequence[str]) -> tuple[list[int], Tensor]:
        """Prefill prompts in one pass, each with its adapter; return their rows, and the logits after them [n, ids]."""
        rows = self._cache.fill([len(prompt) for prompt in prompts])
        # New rows of the cache, before they are assigned an adapter.
        self._adapters += [BASE] * (len(self._cache.lengths) - len(self._adapters))
        for row, adapter in zip(rows, adapters, strict=True):
            self._adapters[row] = adapter
        longest = max(len(prompt) for prompt in prompts)
        # Right-padded: causal attention keeps the prompts' tokens from seeing the padding, so that no mask is needed.
        padded = upload([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], torch.long, self.device)
        last = upload([len(prompt) - 1 for prompt in prompts], torch.long, self.device)
        indices = torch.arange(len(prompts), device=self.device)
        with self._last_logits_only(indices, last):
            positions = torch.arange(longest, device=self.device).expand(len(prompts), -1)
            logits = self._forward(padded, positions, None, list(adapters))
        # Recurrent models ignore the cache that they are given, and keep their own state.
        if not self._cache.is_initialized:
            raise InputError(f"{self.name} ({self.model.config.model_type}) does not keep keys and values for each row")
        return rows, logits[indices, last] if logits.shape[1] > 1 else logits[:, 0]

    def advance(self, tokens: Mapping[int, int]) -> Tensor:
        """Append a token to each of these rows; return the logits of all rows, idle ones included: [rows, ids].

        The next call may overwrite them.
        """
        positions = self._cache.extend()
        rows = len(self._cache.lengths)
        # Idle rows take the adapters that are missing: PEFT's kernels depend on the number of rows of each adapter.
        idle = (self._min_adapters - Counter(self._adapters[row] for row in tokens)).elements()
        self._adapters = [self._adapters[row] if row in tokens else next(idle, BASE) for row in range(rows)]
        last_tokens = upload([[tokens.get(row, 0)] for row in range(rows)], torch.long, self.device)
        if self._passes is None:
            return self._decode(last_tokens, positions)
        if self._arrangement != self._cache.arrangement:
            self._passes.clear()
            self._arrangement = self._cache.arrangement
        return self._passes.run(self._cache.width, self._decode, last_tokens, positions)

    def _decode(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Run a pass of one token of every row; return the logits [rows, ids].

        What it reads and writes besides its arguments depends on the cache's arrangement and width alone.

        Args:
            tokens: [rows, 1].
            positions: Position of each token, [rows].
        """
        mask = self._cache.attend(positions)
        if self._takes_whole_mask:
            mask = mask[:, None, None, :]
        return self._forward(tokens, positions[:, None], mask, self._adapters)[:, 0]

    def release(self, rows: Sequence[int]) -> None:
        """Free the rows of sequences that have ended."""
        self._cache.release(rows)

    def compact(self) -> dict[int, int]:
        """Remove free rows, over which passes would run; return the new index of each row by its old one."""
        new_rows = self._cache.compact()
        adapters = {new: self._adapters[old] for old, new in new_rows.items()}
        self._adapters = [adapters.get(row, BASE) for row in range(len(self._cache.lengths))]
        return new_rows

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, adapters: list[str]) -> Tensor:
        """Return logits, [rows, tokens, ids].

        Args:
            ids: Token ids, [rows, tokens].
            positions: Position of each token, [rows, tokens].
            mask: Positions that each row attends to, [rows, width] or [rows, 1, 1, width]; None for causal attention to
                its own tokens.
            adapters: Adapter of each row.
        """
        # In place: the hooks of PEFT's layers refer to this list.
        self._pass_adapters[:] = adapters
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def _last_logits_only(self, rows: Tensor, last: Tensor) -> Iterator[None]:
        """Compute logits of each prompt's last token only: those of all tokens would take more memory than the model.

        `rows` are the indices of all rows, `last` the index of each row's last token.
        """

        def pick(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (arguments[0][rows, last].unsqueeze(1), *arguments[1:])

        handle = self.model.get_output_embeddings().register_forward_pre_hook(pick)
        try:
            yield
        finally:
            handle.remove()


def _use_row_adapters(model: Any, names: list[str]) -> None:
    """Make PEFT's layers apply, in every pass, each row's adapter from `names`, a list that the caller updates.

    PEFT's own `adapter_names` registers hooks in every layer again for every pass, which takes time.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils import AuxiliaryTrainingWrapper

    kinds: Any = (LoraLayer, AuxiliaryTrainingWrapper)

    def add(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "adapter_names": names}

    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_pre_hook(add, with_kwargs=True)


def _read_limits(model: Any, name: str) -> tuple[int, int | None, int | None]:
    """Return the number of layers, the most tokens of a row, and the most positions that a layer attends to.

    A row may have as many tokens as a sliding window, and as the original length of RoPE scaling that depends on the
    longest row of a batch: up to there neither changes anything. Raises `InputError` for layers with more state than
    keys and values.
    """
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=model.config).layers
    limits = [layer.sliding_window for layer in layers if type(layer) is DynamicSlidingWindowLayer]
    plain = {DynamicLayer.__name__, DynamicSlidingWindowLayer.__name__}
    unsupported = {type(layer).__name__ for layer in layers} - plain
    if unsupported:
        raise InputError(
            f"{name} ({config.model_type}) has layers that keep more than keys and values "
            f"({', '.join(sorted(unsupported))}): give models of plain attention"
        )
    window = min(limits, default=None)
    # These RoPE types change their frequencies once a batch is longer than the original length, for all of its rows.
    rope = getattr(config, "rope_parameters", None) or {}
    most = getattr(config, "max_position_embeddings", None)
    if rope.get("rope_type") in ("dynamic", "longrope"):
        most = rope.get("original_max_position_embeddings") or most
    limits += [most] if isinstance(most, int) else []
    return len(layers), min(limits, default=None), window
