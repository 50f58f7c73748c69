"""q* without vLLM: draws, passes, `generate`, decoding, and the waits of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.gpu.ledger import Figures, Measurement, NotHereError
from benchmarks.gpu.subjects import Subjects
from benchmarks.gpu.timing import (
    GIB,
    count_waits,
    device,
    free_cached,
    has_gpu,
    launches,
    milliseconds,
    peak_gib,
    seconds,
)

VOCABULARY = 151_936
_DRAWS: tuple[dict[str, Any], ...] = (
    {},
    {"diagnostics": False},
    {"top_p": 0.95},
    {"alpha_method": "ess_balance"},
    {"alpha_method": "fixed"},
)
_HINT = 64
PAIRS: dict[str, tuple[tuple[int, int], int]] = {"two models": ((1, 2), 0), "one model and a hint": ((1, 1), _HINT)}
"""The seeds of the two models, and the tokens by which pi_t's prompt is longer."""
_WAIT_ROWS = 8


def draw(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of one draw at a vocabulary of 151,936 tokens."""
    from rollmill.jobs.optimal_sampling.token_sampler import TokenSampler

    for rows in subjects.size.batches:
        for settings in _DRAWS:

            def measure(rows: int = rows, settings: dict[str, Any] = settings) -> Figures:
                free_cached()
                theta, t, uniforms = _logits(rows)
                sampler = TokenSampler(**settings)
                with torch.inference_mode():
                    took = milliseconds(lambda: sampler.draw(theta, t, uniforms))
                    waits = count_waits(lambda: sampler.draw(theta, t, uniforms))
                return {"ms": round(took, 3), "waits": waits, "peak_gib": peak_gib()}

            yield Measurement("draw", {"rows": rows, **settings}, measure)

    def against_cpu() -> Figures:
        if not has_gpu():
            raise NotHereError("no GPU: there is nothing to compare the CPU's draws with")
        theta, t, uniforms = _logits(64)
        here = TokenSampler().draw(theta, t, uniforms)
        there = TokenSampler().draw(theta.cpu(), t.cpu(), uniforms)
        return {"other_tokens": sum(a != b for a, b in zip(here.tokens, there.tokens, strict=True))}

    yield Measurement("draws of the GPU against those of the CPU", {"rows": 64}, against_cpu)


def _logits(rows: int) -> tuple[torch.Tensor, torch.Tensor, list[float]]:
    """Return two models' logits, and a uniform number for each row."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(rows, VOCABULARY, generator=generator) * 3
    t = theta + torch.randn(rows, VOCABULARY, generator=generator)
    return theta.to(device()), t.to(device()), torch.rand(rows, generator=generator).tolist()


def passes(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of one model's pass of one token: the bound of decoding, as it is, and as a CUDA graph."""

    def weights() -> Figures:
        size = sum(weight.numel() * weight.element_size() for weight in subjects.network(1).model.parameters())
        copied = torch.empty(min(size, 4 * GIB) // 2, dtype=torch.uint8, device=device())
        took = milliseconds(lambda: copied.clone(), repeat=3)
        rate = 2 * copied.numel() / took * 1e3  # each byte is read and written
        return {"gib": round(size / GIB, 3), "copied_gb_per_s": round(rate / 1e9, 1), "ms": round(size / rate * 1e3, 3)}

    yield Measurement("reading the weights once", {}, weights)
    for rows in subjects.size.batches:
        yield Measurement("pass of one token", {"rows": rows}, lambda rows=rows: _one_pass(subjects, rows))


def _one_pass(subjects: Subjects, rows: int) -> Figures:
    """Measure a pass of one token for each row, behind a static cache of `prompt` tokens."""
    from transformers.cache_utils import StaticCache

    free_cached()
    model, position = subjects.network(1).model, subjects.size.prompt
    length = position + subjects.size.tokens
    cache = StaticCache(config=model.config, max_cache_len=length)
    ids = torch.full((rows, 1), 42, device=device())
    positions = torch.full((rows, 1), position, device=device())
    mask = (torch.arange(length, device=device()) <= position).expand(rows, 1, 1, length)

    def step() -> Any:
        return model(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=True
        ).logits

    with torch.inference_mode():
        figures: Figures = {"ms": round(milliseconds(step), 3), "peak_gib": peak_gib()}
        if has_gpu():
            figures["graph_ms"] = round(milliseconds(_captured(step)), 3)
    return figures


def _captured(step: Callable[[], Any]) -> Callable[[], None]:
    """Return the replay of a step that was captured as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # lazy initializations must not be captured
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def generate(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of transformers' `generate` with one model."""
    size = subjects.size

    for rows in size.batches:

        def measure(rows: int = rows) -> Figures:
            free_cached()
            model = subjects.network(1).model
            ids = torch.tensor([list(item.prompt_ids_theta) for item in subjects.requests(rows)], device=device())
            settings = {"max_new_tokens": size.tokens, "min_new_tokens": size.tokens, "do_sample": True, "top_k": 0}

            def run() -> Any:
                return model.generate(ids, attention_mask=torch.ones_like(ids), pad_token_id=0, **settings)

            run()
            took = seconds(run)
            return _rate(rows, size.tokens, took)

        yield Measurement("generate, one model", {"rows": rows}, measure)


def decode(subjects: Subjects) -> Iterator[Measurement]:
    """Yield measurements of decoding of q*, with prefill."""
    for name in PAIRS:
        for rows in subjects.size.batches:
            yield Measurement(
                "q*", {"pair": name, "rows": rows}, lambda name=name, rows=rows: _decode(subjects, name, rows)
            )


def _decode(subjects: Subjects, name: str, rows: int) -> Figures:
    from rollmill.jobs.optimal_sampling.decoding import Decoder

    free_cached()
    seeds, hint = PAIRS[name]
    decoder = Decoder(subjects.pair(seeds), batch_size=rows, max_new_tokens=subjects.size.tokens)
    list(decoder.decode(subjects.requests(min(rows, 2), hint=hint)))
    requests, answers = subjects.requests(rows, hint=hint), []
    took = seconds(lambda: answers.extend(decoder.decode(requests)))
    assert all(len(answer.token_ids) == subjects.size.tokens for answer in answers)
    return _rate(rows, subjects.size.tokens, took) | {"batch_size": decoder.batch_size}


def _rate(rows: int, tokens: int, took: float) -> Figures:
    """Return tokens per second and milliseconds per token of a batch that took so many seconds."""
    return {
        "tokens_per_s": round(rows * tokens / took, 1),
        "ms_per_step": round(took / tokens * 1e3, 2),
        "peak_gib": peak_gib(),
    }


def waits(subjects: Subjects) -> Iterator[Measurement]:
    """Yield counts of one decoding step: waits of the host, and kernels."""
    rows = min(_WAIT_ROWS, max(subjects.size.batches))
    for name in PAIRS:
        yield Measurement(
            "one step of q*", {"pair": name, "rows": rows}, lambda name=name: _count_step(subjects, name, rows)
        )


def _count_step(subjects: Subjects, name: str, rows: int) -> Figures:
    """Count what two runs that differ by two tokens differ by: one step is half of it."""
    from rollmill.jobs.optimal_sampling.decoding import Decoder

    seeds, hint = PAIRS[name]
    pair, requests = subjects.pair(seeds), subjects.requests(rows, hint=hint)

    def run(tokens: int) -> Callable[[], Any]:
        decoder = Decoder(pair, batch_size=rows, max_new_tokens=tokens)
        return lambda: list(decoder.decode(requests))

    run(4)()
    few, many = (count_waits(run(tokens)) for tokens in (2, 4))
    less, more = (launches(run(tokens)) for tokens in (2, 4))
    return {"waits": (many - few) / 2, **{kind: (more[kind] - less[kind]) / 2 for kind in more}}
