"""`OptimalSamplingModel`: the mixture of two models as one model that generates.

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
from rollmill.jobs.optimal_sampling.model_spec import ModelSpec, resolve_pair
from rollmill.jobs.optimal_sampling.pair import Pair, load_pair
from rollmill.jobs.optimal_sampling.samples import Decoded, SampleRequest
from rollmill.jobs.optimal_sampling.token_sampler import FIELDS, TokenSampler, check_setting
from rollmill.jobs.optimal_sampling.vllm_decoding import VllmDecoder, VllmPair

BACKENDS = ("transformers", "vllm")

PairDecoder = Decoder | VllmDecoder
Prompt = str | Sequence[Mapping[str, Any]]
"""Text, tokenised as it is, or chat messages, rendered by the model's own chat template."""


@dataclass(frozen=True)
class GenerationOutput:
    """Answers in the order of their prompts. Tensors are [batch, seq] on the CPU, padded with 0."""

    generated_texts: list[str]
    """Answers without special tokens."""
    token_ids: list[list[int]]
    """Token ids up to and including the end token."""
    lengths: list[int]
    """Number of tokens of each answer."""
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
    """Samples from q, proportional at every token to pi_theta^alpha * pi_t^(1 - alpha): alpha weighs pi_theta.

    Raises `InputError` for models that cannot be loaded or do not fit together, and for values out of bounds.

    Args:
        model_theta_path: The policy pi_theta: directory or hub id; an adapter's directory stands for its base with the
            adapter.
        model_t_path: The target model pi_t, likewise. None for the policy's weights, which are loaded once: the two
            then differ by adapters or prompts.
        backend: `transformers`, or `vllm`, which runs both in one vLLM, as one set of weights with adapters: see
            `VllmPair`. It ends with `close`, or with the `with` block.
        alpha_method: Method by which alpha is chosen; see `compute_alpha`.
        fixed_alpha: Alpha of the method `fixed`, in [0, 1].
        alpha_tol: Error of the methods that search a root, above 0.
        device: Device of torch, such as `cuda:1`; None for a GPU where there is one.
        device_t: Device of pi_t, if it is another one; None for the same, or, without `device`, for the second of
            several GPUs where the models have weights of their own.
        dtype: Dtype of the weights; None for bfloat16 on a GPU, float32 on a CPU.
        adapter_theta: Directory of a LoRA adapter on the policy.
        adapter_t: Directory of a LoRA adapter on the target model.
        batch_size: Answers that are generated at the same time.
        support_top_k: q is restricted to so many of pi_t's most probable tokens; -1 for all.
        support_top_p: q is restricted to pi_t's nucleus of this mass.
        vllm_args: More arguments for vLLM, as in a shell.
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
        device_t: str | None = None,
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
        spec = resolve_pair(
            model_theta_path,
            model_t_path,
            adapter_theta=adapter_theta,
            adapter_t=adapter_t,
            runner="vllm" if backend == "vllm" else "peft",
        )
        TokenSampler(**self._settings)  # raises for values out of bounds, before the models are loaded
        check_setting(batch_size >= 1, "batch_size", batch_size, "1 or more")
        self.spec = spec
        self.pair: Pair | VllmPair
        if backend == "vllm":
            self.pair = VllmPair(
                spec, device=device or device_t, dtype=dtype, batch_size=batch_size, arguments=vllm_args
            )
        else:
            self.pair = load_pair(spec, device=device, device_t=device_t, dtype=dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM, if it is the backend."""
        if isinstance(self.pair, VllmPair):
            self.pair.close()

    def decoder(self, **settings: Any) -> PairDecoder:
        """Return a decoder of this pair; `settings` are those of one answer: `max_new_tokens`, `temperature`, ..."""
        arguments = {"batch_size": self._batch_size, **self._settings, **settings}
        return (
            VllmDecoder(self.pair, **arguments) if isinstance(self.pair, VllmPair) else Decoder(self.pair, **arguments)
        )

    def request(self, key: Any, prompt: Prompt, prompt_t: Prompt | None, seed: int) -> SampleRequest:
        """Return the request for one answer.

        Args:
            key: Identifies the answer.
            prompt: Prompt of pi_theta: a text, or messages.
            prompt_t: Prompt of pi_t; None for the same, rendered by pi_t's own chat template.
            seed: Seed of the answer.
        """
        theta, t = self.spec.theta, self.spec.t
        ids = prompt_ids(theta, prompt)
        same = prompt_t is None and t.tokenizer is theta.tokenizer
        return SampleRequest(key, ids, ids if same else prompt_ids(t, prompt if prompt_t is None else prompt_t), seed)

    def text(self, token_ids: Sequence[int]) -> str:
        """Return an answer's text, without special tokens."""
        return str(self.spec.theta.tokenizer.decode(token_ids, skip_special_tokens=True))

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

        An answer depends only on `seed`, its prompts and its index in the list. Raises as `Decoder.decode` does.

        Args:
            prompts: Texts, or lists of messages.
            max_new_tokens: Most tokens of an answer.
            temperature: Temperature of sampling from q; 0 takes the most probable token.
            top_p: Nucleus of sampling from q.
            top_k: Number of q's most probable tokens to sample from; -1 for all.
            return_diagnostics: Whether the output has KL and ESS besides alpha.
            seed: Seed of all answers.
            prompts_t: Prompts of pi_t, such as the prompts with a hint; None for the same prompts.
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
    """Return an `OptimalSamplingModel`, by the names of the command line.

    Args:
        model_theta: Directory or hub id of the policy.
        model_t: Directory or hub id of the target model; None for the policy's weights.
        alpha_method: Method by which alpha is chosen; see `compute_alpha`.
        **settings: The other arguments of the constructor.
    """
    return OptimalSamplingModel(model_theta, model_t, alpha_method=alpha_method, **settings)
