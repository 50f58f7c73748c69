"""One set of weights, and the rows in flight on it.

Imports torch, transformers and, for rows with adapters of their own, PEFT.
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
from rollmill.jobs.optimal_sampling.kv_cache import Slots

BASE = "__base__"
"""PEFT's name for no adapter."""


class Network:
    """One set of weights, and the rows in flight on it.

    A row's logits are those that it has with any others, to the bit, where its kernels give every row of a matrix the
    same numbers whatever the others hold.
    """

    def __init__(self, model: Any, name: str, *, mixed: bool = False) -> None:
        self.model, self.name = model.eval(), name
        self._pass_adapters: list[str] = []
        if mixed:  # rows have adapters of their own; else all have the one that is active
            _name_adapters(model, self._pass_adapters)
        self.device: torch.device = model.device
        self.ids: int = model.get_output_embeddings().weight.shape[0]
        """The token ids that it gives logits for."""
        self._layers, self.longest, self._window = _room(model, name)
        self.reset()

    def reset(self, least: Sequence[str] = ()) -> None:
        """Forget every row, and give their memory back.

        A pass of one token a row has at least the rows of these adapters: the others run idle.
        """
        self._least = Counter(least)
        self._slots = Slots(self._layers, self.device, least_rows=len(least), window=self._window)
        self._adapters: list[str] = []

    def admit(self, prompts: Sequence[Sequence[int]], adapters: Sequence[str]) -> tuple[list[int], Tensor]:
        """Read newcomers' prompts in one pass, each with its adapter: their rows, and logits after them [n, ids]."""
        rows = self._slots.fill([len(prompt) for prompt in prompts])
        self._adapters += [BASE] * (len(self._slots.lengths) - len(self._adapters))
        for row, adapter in zip(rows, adapters, strict=True):
            self._adapters[row] = adapter
        longest = max(len(prompt) for prompt in prompts)
        padded = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=self.device)
        last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=self.device)
        every = torch.arange(len(prompts), device=self.device)
        with self._only(every, last):
            positions = torch.arange(longest, device=self.device).expand(len(prompts), -1)
            logits = self._forward(padded, positions, None, list(adapters))
        if not self._slots.is_initialized:
            raise InputError(f"{self.name} ({self.model.config.model_type}) does not keep keys and values for each row")
        return rows, logits[every, last] if logits.shape[1] > 1 else logits[:, 0]

    def advance(self, tokens: Mapping[int, int]) -> Tensor:
        """Give every row its next token; return the logits after it [rows, ids], those of idle rows among them."""
        mask = self._slots.extend()
        rows = len(self._slots.lengths)
        idle = (self._least - Counter(self._adapters[row] for row in tokens)).elements()
        self._adapters = [self._adapters[row] if row in tokens else next(idle, BASE) for row in range(rows)]
        last_tokens = torch.tensor([[tokens.get(row, 0)] for row in range(rows)], device=self.device)
        return self._forward(last_tokens, self._slots.positions[:, None], mask, self._adapters)[:, 0]

    def release(self, rows: Sequence[int]) -> None:
        """Free the rows of sequences that have ended, for the next newcomers."""
        self._slots.release(rows)

    def compact(self) -> dict[int, int]:
        """Give up free places, so that no pass is over them; return the row after for each row before."""
        moved = self._slots.compact()
        adapters = {after: self._adapters[before] for before, after in moved.items()}
        self._adapters = [adapters.get(row, BASE) for row in range(len(self._slots.lengths))]
        return moved

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None, adapters: list[str]) -> Tensor:
        self._pass_adapters[:] = adapters
        output = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=mask,
            past_key_values=self._slots,
            use_cache=True,
        )
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def _only(self, every: Tensor, last: Tensor) -> Iterator[None]:
        """Compute logits of each prompt's last token alone: of all they would take more memory than the model."""

        def pick(_: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (arguments[0][every, last].unsqueeze(1), *arguments[1:])

        handle = self.model.get_output_embeddings().register_forward_pre_hook(pick)
        try:
            yield
        finally:
            handle.remove()


def _name_adapters(model: Any, names: list[str]) -> None:
    """Make PEFT's layers take, in every pass, each row's adapter from `names`.

    So does PEFT's own `adapter_names`, but it sets every layer up anew in every pass, which takes time.
    """
    from peft.tuners.lora import LoraLayer
    from peft.utils import AuxiliaryTrainingWrapper

    kinds: Any = (LoraLayer, AuxiliaryTrainingWrapper)

    def add(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "adapter_names": names}

    for module in model.modules():
        if isinstance(module, kinds):
            module.register_forward_pre_hook(add, with_kwargs=True)


def _room(model: Any, name: str) -> tuple[int, int | None, int | None]:
    """Return the layers, the tokens that a row may have, and the positions that a layer attends to at most.

    Raises `InputError` for layers that keep more than keys and values.

    Within a sliding window, and within the original length of rotary positions that depend on the batch's longest row,
    a row does not notice them.
    """
    config = model.config.get_text_config(decoder=True)
    layers = DynamicCache(config=model.config).layers
    limits = [layer.sliding_window for layer in layers if type(layer) is DynamicSlidingWindowLayer]
    strange = {type(layer).__name__ for layer in layers} - {DynamicLayer.__name__, DynamicSlidingWindowLayer.__name__}
    if strange:
        raise InputError(
            f"{name} ({config.model_type}) has layers that keep more than keys and values "
            f"({', '.join(sorted(strange))}): give models of plain attention"
        )
    window = min(limits, default=None)
    rope = getattr(config, "rope_parameters", None) or {}
    most = getattr(config, "max_position_embeddings", None)
    if rope.get("rope_type") in ("dynamic", "longrope"):
        most = rope.get("original_max_position_embeddings") or most
    limits += [most] if isinstance(most, int) else []
    return len(layers), min(limits, default=None), window
