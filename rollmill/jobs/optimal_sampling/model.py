"""The mixture of two models as one model that generates.

Imports torch, transformers and, for adapters, PEFT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from rollmill.errors import InputError
from rollmill.generation.identity import rollout_seed
from rollmill.jobs.optimal_sampling.decoding import Decoder
from rollmill.jobs.optimal_sampling.model_spec import ModelSpec, choose_pair
from rollmill.jobs.optimal_sampling.pair import Pair, load_pair
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import FIELDS, Drawer, check
from rollmill.jobs.optimal_sampling.vllm_decoding import VllmDecoder, VllmPair

BACKENDS = ("transformers", "vllm")

PairDecoder = Decoder | VllmDecoder
Prompt = str | Sequence[Mapping[str, Any]]
"""Text, taken as it stands, or chat messages, put through the model's own chat template."""


@dataclass(frozen=True)
class GenerationOutput:
    """Answers in the order of their prompts. Tensors are [batch, seq] on the CPU, 0 behind an answer's end."""

    generated_texts: list[str]
    """Without special tokens."""
    token_ids: list[list[int]]
    """Up to and including the end token."""
    lengths: list[int]
    """Tokens of each answer."""
    finish_reasons: list[str]
    """`stop` or `length`."""
    mask: Tensor
    """True where an answer has a token."""
    alpha_values: Tensor
    """The weight of pi_theta at each token."""
    ess_ratios: Tensor | None
    """ESS_theta / ESS_t; None without diagnostics. KL symmetry does not make it 1: look at `kl_gap` for that."""
    diagnostics: dict[str, Tensor] | None
    """`alpha`, `kl_theta`, `kl_t`, `kl_gap`, `ess_ratio`: of q before temperature, top-p and top-k."""


class OptimalSamplingModel:
    """Draws from q, proportional at every token to pi_theta^alpha * pi_t^(1 - alpha): alpha weighs pi_theta.

    Paths are directories or hub ids; an adapter's directory stands for its base with the adapter. Without
    `model_t_path` both have the same weights, told apart by adapters or prompts; what both have is loaded once.
    `alpha_method`: see `compute_alpha`. `support_top_k`/`support_top_p` keep q to pi_t's most probable tokens.
    `backend` `vllm` holds both in one vLLM, which takes one set of weights with adapters: see `VllmPair`; it
    ends with `close`, or with the `with` block. Raises `InputError` for what cannot be loaded, does not go together, or
    is out of bounds.
    """

    def __init__(
        self,
        model_theta_path: str,
        model_t_path: str | None = None,
        backend: str = "transformers",
        alpha_method: str = "kl_symmetry",
        fixed_alpha: float = 0.5,
        alpha_tol: float = 1e-6,
        device: str | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        adapter_theta: str | None = None,
        adapter_t: str | None = None,
        batch_size: int = 8,
        support_top_k: int = -1,
        support_top_p: float = 1.0,
        vllm_args: str = "",
    ) -> None:
        if backend not in BACKENDS:
            raise InputError(f"backend {backend!r}: give one of {', '.join(BACKENDS)}")
        self._settings: dict[str, Any] = {
            "alpha_method": alpha_method,
            "fixed_alpha": fixed_alpha,
            "alpha_tol": alpha_tol,
            "support_top_k": support_top_k,
            "support_top_p": support_top_p,
        }
        self._batch_size = batch_size
        chosen = choose_pair(
            model_theta_path,
            model_t_path,
            adapter_theta=adapter_theta,
            adapter_t=adapter_t,
            runner="vllm" if backend == "vllm" else "peft",
        )
        Drawer(**self._settings)  # says at once what is out of bounds
        check(batch_size >= 1, "batch_size", batch_size, "1 or more")
        self.chosen = chosen
        self.pair: Pair | VllmPair
        if backend == "vllm":
            self.pair = VllmPair(chosen, device=device, dtype=dtype, batch_size=batch_size, arguments=vllm_args)
        else:
            self.pair = load_pair(chosen, device=device, dtype=dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM, where that is the backend."""
        if isinstance(self.pair, VllmPair):
            self.pair.close()

    def decoder(self, **settings: Any) -> PairDecoder:
        """Return a decoder of this pair; `settings` are those of one answer: `max_new_tokens`, `temperature`, ..."""
        arguments = {"batch_size": self._batch_size, **self._settings, **settings}
        return (
            VllmDecoder(self.pair, **arguments) if isinstance(self.pair, VllmPair) else Decoder(self.pair, **arguments)
        )

    def request(self, key: Any, prompt: Prompt, prompt_t: Prompt | None, seed: int) -> SampleRequest:
        """Make the request of one answer. Without `prompt_t` pi_t sees the same prompt, through its own template.

        Args:
            key: Names the answer.
            prompt: What pi_theta sees: a text, or messages.
            prompt_t: What pi_t sees in place of it.
            seed: Of the answer.
        """
        theta, t = self.chosen.theta, self.chosen.t
        ids = prompt_ids(theta, prompt)
        same = prompt_t is None and t.tokenizer is theta.tokenizer
        return SampleRequest(key, ids, ids if same else prompt_ids(t, prompt if prompt_t is None else prompt_t), seed)

    def text(self, token_ids: Sequence[int]) -> str:
        """Return an answer's text, without special tokens."""
        return str(self.chosen.theta.tokenizer.decode(token_ids, skip_special_tokens=True))

    def generate(
        self,
        prompts: Sequence[Prompt],
        max_new_tokens: int = 512,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = -1,
        return_diagnostics: bool = True,
        seed: int = 0,
        prompts_t: Sequence[Prompt] | None = None,
    ) -> GenerationOutput:
        """Draw one answer to each prompt.

        An answer depends on `seed`, its prompts and its place in the list alone. Raises as `Decoder.decode` does.

        Args:
            prompts: Texts, or lists of messages.
            max_new_tokens: Tokens of an answer, at most.
            temperature: Of the sampling from q.
            top_p: Nucleus of the sampling from q.
            top_k: Most probable tokens of q to sample from; -1 for all.
            return_diagnostics: Whether the output has more than alpha.
            seed: Of all answers.
            prompts_t: What pi_t sees in place of each prompt, such as the prompt with a hint.
        """
        if isinstance(prompts, str) or isinstance(prompts_t, str):
            raise InputError("prompts is one text: give a list of texts, or of lists of messages")
        if prompts_t is not None and len(prompts_t) != len(prompts):
            raise InputError(f"there are {len(prompts)} prompts and {len(prompts_t)} prompts_t: give one for each")
        decoder = self.decoder(
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            diagnostics=return_diagnostics,
        )
        requests = (
            self.request(index, prompt, prompts_t[index] if prompts_t else None, rollout_seed(seed, str(index), 0))
            for index, prompt in enumerate(prompts)
        )
        decoded = {answer.key: answer for answer in decoder.decode(requests)}
        self._batch_size = decoder.batch_size  # smaller, where memory ran out
        return self._output([decoded[index] for index in range(len(prompts))], return_diagnostics)

    def _output(self, answers: list[Decoded], diagnostics: bool) -> GenerationOutput:
        lengths = [len(answer.token_ids) for answer in answers]
        longest = max(lengths, default=0)
        tensors = {
            name: torch.tensor([[*a.diagnostics[name], *[0.0] * (longest - len(a.token_ids))] for a in answers])
            for name in (FIELDS if diagnostics else FIELDS[:1])
        }
        return GenerationOutput(
            generated_texts=[self.text(answer.token_ids) for answer in answers],
            token_ids=[answer.token_ids for answer in answers],
            lengths=lengths,
            finish_reasons=[answer.finish_reason for answer in answers],
            mask=torch.arange(longest) < torch.tensor(lengths, dtype=torch.long)[:, None],
            alpha_values=tensors["alpha"],
            ess_ratios=tensors["ess_ratio"] if diagnostics else None,
            diagnostics=tensors if diagnostics else None,
        )


def prompt_ids(side: ModelSpec, prompt: Prompt) -> list[int]:
    """Return the token ids of a prompt. Raises `InputError` for messages where the tokenizer has no chat template."""
    tokenizer = side.tokenizer
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    if not tokenizer.chat_template:
        raise InputError(f"the tokenizer of {side.name} has no chat template: give prompts as text, or a chat model")
    return list(tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False))


def create_optimal_sampling_model(
    model_theta: str, model_t: str | None = None, alpha_method: str = "kl_symmetry", **settings: Any
) -> OptimalSamplingModel:
    """Make an `OptimalSamplingModel` by the names of the command line.

    Args:
        model_theta: Directory or hub id of the policy.
        model_t: Directory or hub id of the target model; None for the policy's.
        alpha_method: How alpha is chosen.
        **settings: The other arguments of the constructor.
    """
    return OptimalSamplingModel(model_theta, model_t, alpha_method=alpha_method, **settings)
