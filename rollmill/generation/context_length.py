"""Check, before the first request, that the longest prompts and their completions fit into the model's context."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from rollmill.files.regular import require_regular
from rollmill.generation.run import Run
from rollmill.inference.backend import client_config, listed_at
from rollmill.inference.machine import flag_value
from rollmill.inference.probe import NotAnsweringError, count_tokens
from rollmill.inference.trial import TrialRequest
from rollmill.problems import Prompting, build_messages
from rollmill.records import Message, Problem
from rollmill.terminal.escapes import visible_line

CountTokens = Callable[[list[Message]], int | None]
_LONGEST = 4
_LARGEST_CONFIG = 1 << 24
_LARGEST_TOKENIZER = 1 << 28


def context_note(
    run: Run, prompting: Prompting, *, max_tokens: int, length: int | None, count: CountTokens
) -> str | None:
    """Return a note where the longest prompts leave no room for `max_tokens` in the context; None where they do.

    Args:
        run: The run whose problems are checked; only the few longest are tokenized.
        prompting: Prompt template, system prompt and few-shot examples.
        max_tokens: Limit of a completion, in tokens.
        length: Context length of the model, in tokens; None where it is not known.
        count: Counts the tokens of a prompt; returns None where it cannot.
    """
    if length is None:
        return None
    # By characters first, which is cheap; tokens are then counted for the few longest alone.
    longest = heapq.nlargest(_LONGEST, run.problems(), key=_size)
    counted = [(count(build_messages(problem, prompting)), problem.instance_id) for problem in longest]
    tokens, instance_id = max(((tokens or 0, name) for tokens, name in counted), default=(0, ""))
    if tokens + max_tokens <= length:
        return None
    room = length - tokens
    advice = f"give --max_tokens {room} or less" if room > 0 else "leave such problems out"
    return (
        f"the longest prompt, of {visible_line(instance_id)[:80]}, has {tokens:,} tokens: with --max_tokens "
        f"{max_tokens:,} that is more than the model's context of {length:,}, and servers refuse such requests: "
        f"{advice}, or serve the model with a longer context (--max-model-len)"
    )


def _size(problem: Problem) -> int:
    prompt = problem.prompt
    return len(prompt) if isinstance(prompt, str) else sum(len(str(message.get("content"))) for message in prompt)


def running_context(request: TrialRequest, model_path: str) -> tuple[int | None, CountTokens]:
    """Return context length and token counter of a model on running servers, as the first one lists it.

    Args:
        request: Addresses of the servers, and the model's names there.
        model_path: The model's local directory, or its hub id.
    """
    client = client_config(request.parameters, request.endpoint)
    url = request.urls[0]
    try:
        listed = listed_at(url, client) or {}
    except NotAnsweringError:
        listed = {}
    name = next((name for name in request.names if name in listed), None)
    if name is None:
        return None, _count_unknown
    # A local tokenizer is faster than a request per prompt; the server's own path may be readable here, too.
    local = local_counter(model_path) or local_counter(listed[name].root)
    key = client.api_key.get_secret_value() if client.api_key else None
    return listed[name].max_model_len, local or (
        lambda messages: count_tokens(url, name, messages, api_key=key, headers=client.headers)
    )


def own_context(model_path: str, arguments: Sequence[str]) -> tuple[int | None, CountTokens]:
    """Return context length and token counter of a model on a vLLM server that this job starts.

    Args:
        model_path: The model's directory.
        arguments: Command line arguments of vLLM; `--max-model-len` overrides the model's configuration.
    """
    flag = flag_value(arguments, "--max-model-len")
    length = int(flag) if flag is not None and flag.isdecimal() else None
    counter = local_counter(model_path)
    if counter is None:
        return None, _count_unknown
    return length if flag is not None else _configured_length(Path(model_path)), counter


def local_counter(model_path: str) -> CountTokens | None:
    """Return a counter of a prompt's tokens by a directory's `tokenizer.json`; None where there is none.

    It does not count the tokens that the chat template adds.
    """
    path = Path(model_path) / "tokenizer.json"
    content = _content(path, _LARGEST_TOKENIZER)
    if content is None:
        return None
    from tokenizers import Tokenizer  # late: not every run has a model's files

    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception:  # a tokenizer that the library cannot read must not stop a run: the check is optional
        return None
    return lambda messages: sum(len(tokenizer.encode(_text_of(message)).ids) for message in messages)


def _text_of(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _configured_length(folder: Path) -> int | None:
    """Return `max_position_embeddings` of a model's config.json; multimodal models have it in `text_config`."""
    try:
        config: Any = orjson.loads(_content(folder / "config.json", _LARGEST_CONFIG) or b"null")
    except orjson.JSONDecodeError:
        return None
    configs = [config, config.get("text_config")] if isinstance(config, dict) else []
    lengths = [each.get("max_position_embeddings") for each in configs if isinstance(each, dict)]
    return next((length for length in lengths if type(length) is int and length > 0), None)


def _content(path: Path, largest: int) -> bytes | None:
    try:
        require_regular(path)
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError:
        return None
    return content if len(content) <= largest else None


def _count_unknown(_messages: list[Message]) -> int | None:
    return None
