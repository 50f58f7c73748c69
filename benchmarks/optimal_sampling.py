"""Measures tokens per second of q* by method and batch against plain generation, on a small model and its adapter.

The bound is the added time of both models alone: plain Hugging Face `generate` of each. End tokens are ignored, so that
all contenders draw the same number of tokens. They alternate, and the best of each counts. The methods are compared
with each other by single steps, in which all draw from the same logits.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from benchmarks.contender_process import ROOT, scratch_folder
from benchmarks.machine import machine
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.jobs.optimal_sampling.decoding import Decoder
from rollmill.jobs.optimal_sampling.model_spec import resolve_pair
from rollmill.jobs.optimal_sampling.network import Network
from rollmill.jobs.optimal_sampling.pair import Pair, load_pair
from rollmill.jobs.optimal_sampling.samples import SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import TokenSampler

MODEL = ROOT / "models/SmolLM2-135M-Instruct"
METHODS = ("fixed", "entropy", "kl_symmetry", "ess_balance", "reverse_kl_symmetry")
OF_BOUND, KL_OF_FIXED = 0.9, 1.05
PROMPT_TOKENS = 32
PASS = "pass"


def make_adapter(folder: Path, model: Path) -> Path:
    """Make a random adapter that changes the model's distribution noticeably."""
    torch.manual_seed(0)
    config = LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), config)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    adapted.save_pretrained(folder)
    return folder


def some_prompts(batch: int) -> Tensor:
    """Return random token ids [batch, PROMPT_TOKENS]."""
    generator = torch.Generator().manual_seed(batch)
    return torch.randint(100, 40_000, (batch, PROMPT_TOKENS), generator=generator)


class Contenders:
    """All contenders, on weights that are loaded once."""

    def __init__(self, model: Path, adapter: Path, tokens: int) -> None:
        self._tokens = tokens
        pair = load_pair(resolve_pair(str(model), adapter_t=str(adapter)), device="cpu", dtype="float32")
        self._pair = dataclasses.replace(pair, end_tokens=frozenset())
        self._base = self._plain_model(model)
        self._adapted = PeftModel.from_pretrained(self._plain_model(model), adapter).eval()
        self._adapted.generation_config.eos_token_id = None
        theta = dataclasses.replace(pair.theta, network=Network(self._base, str(model)))
        t = dataclasses.replace(pair.t, network=Network(self._adapted, str(model)))
        self._two_passes = dataclasses.replace(self._pair, theta=theta, t=t)

    def _plain_model(self, model: Path) -> Any:
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        loaded.generation_config.eos_token_id = None
        return loaded

    def step_costs(self, batch: int) -> dict[str, float]:
        """Return seconds of one step by method; see the function `step_costs`."""
        return step_costs(self._pair, some_prompts(batch), self._tokens)

    def calls(self, batch: int) -> dict[str, Callable[[], None]]:
        """Return the contenders by name, each of which draws `tokens` tokens for `batch` prompts."""
        prompts = some_prompts(batch)
        calls: dict[str, Callable[[], None]] = {
            "generate, base": lambda: self._generate(self._base, prompts),
            "generate, adapter": lambda: self._generate(self._adapted, prompts),
        }
        for method in METHODS:
            calls[f"q*, {method}"] = lambda method=method: self._draw(self._pair, method, prompts)
        calls["q*, kl_symmetry, two passes"] = lambda: self._draw(self._two_passes, "kl_symmetry", prompts)
        return calls

    def _generate(self, model: Any, prompts: Tensor) -> None:
        with torch.inference_mode():
            drawn = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=True, top_k=0, top_p=1.0,
                max_new_tokens=self._tokens, pad_token_id=2,
            )  # fmt: skip
        assert drawn.shape[1] == prompts.shape[1] + self._tokens

    def _draw(self, pair: Pair, method: str, prompts: Tensor) -> None:
        decoder = Decoder(pair, alpha_method=method, batch_size=len(prompts), max_new_tokens=self._tokens)
        requests = [SampleRequest(index, prompt, prompt, index) for index, prompt in enumerate(prompts.tolist())]
        count = sum(len(sample.token_ids) for sample in decoder.decode(requests))
        assert count == len(prompts) * self._tokens


def measure(contenders: Contenders, batch: int, options: argparse.Namespace) -> dict[str, float]:
    """Return tokens per second by name: the best of several repetitions."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeat):
        for name, call in contenders.calls(batch).items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    return {name: batch * options.tokens / min(times) for name, times in seconds.items()}


class _Timed(Decoder):
    """Draws by every method from the same logits in each step, timed; continues with its own method's tokens."""

    def __init__(self, pair: Pair, **settings: Any) -> None:
        super().__init__(pair, **settings)
        self._drawers = {method: TokenSampler(alpha_method=method) for method in METHODS}
        self._order = deque(METHODS)
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def _advance(self, flights: list[Any]) -> tuple[Tensor, Tensor]:
        with self._timed(PASS):
            return super()._advance(flights)

    def _draw(self, flights: list[Any], logits_theta: Tensor, logits_t: Tensor) -> None:
        ids = self.pair.vocabulary
        self._order.rotate()  # the first one has a cold CPU cache: rotate, so that it is not always the same
        for method in self._order:
            with self._timed(method):
                self._drawers[method].draw(logits_theta[:, :ids], logits_t[:, :ids], [0.5] * len(flights))
        super()._draw(flights, logits_theta, logits_t)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[name].append(time.perf_counter() - began)


def step_costs(pair: Pair, prompts: Tensor, tokens: int) -> dict[str, float]:
    """Return seconds of one step by method, forward pass and draw: medians over the steps of one batch."""
    decoder = _Timed(pair, batch_size=len(prompts), max_new_tokens=tokens)
    requests = [SampleRequest(index, prompt, prompt, index) for index, prompt in enumerate(prompts.tolist())]
    assert len(list(decoder.decode(requests))) == len(prompts)
    middle = {name: median(seconds) for name, seconds in decoder.seconds.items()}
    return {method: middle[PASS] + middle[method] for method in METHODS}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, default=MODEL, help="directory of a model; scripts/demo_model makes one")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="prompts at a time")
    parser.add_argument("--tokens", type=int, default=32, help="drawn for each prompt")
    parser.add_argument("--repeat", type=int, default=3, help="turns; the best counts")
    options = parser.parse_args()
    if not options.model.is_dir():
        parser.error(f"there is no model in {options.model}: make one with scripts/demo_model, or name another")
    where = machine()
    with scratch_folder() as folder:
        contenders = Contenders(options.model, make_adapter(folder / "adapter", options.model), options.tokens)
        rates = {batch: measure(contenders, batch, options) for batch in options.batches}
        steps = {batch: contenders.step_costs(batch) for batch in options.batches}
    targets = Targets()
    rows = []
    for name in next(iter(rates.values())):
        row = {"": name}
        for batch, figures in rates.items():
            row[f"batch {batch}: tokens/s"] = f"{figures[name]:.1f}"
            row[f"{batch}: of bound"] = f"{figures[name] / bound(figures):.2f}"
        rows.append(row)
    show(f"q* of {options.model.name} and an adapter on {where}, {options.tokens} tokens", rows)
    for batch, figures in rates.items():
        for method in METHODS[:3]:
            targets.at_least(
                f"batch {batch}, {method} of the bound", figures[f"q*, {method}"] / bound(figures), OF_BOUND
            )
        cost = steps[batch]["kl_symmetry"] / steps[batch]["fixed"]
        targets.at_most(f"batch {batch}, kl_symmetry over fixed, time of a step", cost, KL_OF_FIXED)
        gain = figures["q*, kl_symmetry"] / figures["q*, kl_symmetry, two passes"]
        targets.at_least(f"batch {batch}, one pass over two, rate", gain, 1.0)
    targets.end(check=options.check)


def bound(figures: dict[str, float]) -> float:
    """Return tokens per second if each token took exactly the time of both models."""
    return 1 / (1 / figures["generate, base"] + 1 / figures["generate, adapter"])


if __name__ == "__main__":
    main()
