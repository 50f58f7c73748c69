"""Whether prompts and their answers fit into a model's context, said before the first request."""

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
    """Return what a user should know where the longest prompts leave no room for an answer; None where they do.

    Args:
        run: Whose problems they are.
        prompting: How prompts are made of them.
        max_tokens: The limit of an answer.
        length: Tokens of the model's context; None where it is not known.
        count: Returns how many tokens a prompt has; None where it cannot tell.
    """
    if length is None:
        return None
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
    """Return the context's length by the first running server's list, and what counts a prompt's tokens.

    Args:
        request: Where the servers are, and the model's names there.
        model_path: The model's directory, where it is one here.
    """
    client = client_config(request.parameters, request.endpoint)
    url = request.urls[0]
    try:
        listed = listed_at(url, client) or {}
    except NotAnsweringError:
        listed = {}
    name = next((name for name in request.names if name in listed), None)
    if name is None:
        return None, _cannot_tell
    local = local_counter(model_path) or local_counter(listed[name].root)
    key = client.api_key.get_secret_value() if client.api_key else None
    return listed[name].max_model_len, local or (
        lambda messages: count_tokens(url, name, messages, api_key=key, headers=client.headers)
    )


def own_context(model_path: str, arguments: Sequence[str]) -> tuple[int | None, CountTokens]:
    """Return the context's length of a vLLM of our own, by its arguments or the model's files, and what counts tokens.

    Args:
        model_path: The model's directory.
        arguments: Those that vLLM is started with.
    """
    given = flag_value(arguments, "--max-model-len")
    length = int(given) if given is not None and given.isdecimal() else None
    counter = local_counter(model_path)
    if counter is None:
        return None, _cannot_tell
    return length if given is not None else _length_of(Path(model_path)), counter


def local_counter(model_path: str) -> CountTokens | None:
    """Return what counts a prompt's tokens by the tokenizer in a directory, less those of the chat template."""
    path = Path(model_path) / "tokenizer.json"
    content = _content(path, _LARGEST_TOKENIZER)
    if content is None:
        return None
    from tokenizers import Tokenizer  # late: not every run has a model's files

    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception:  # whatever the library finds wrong with it, counting is not worth a run
        return None
    return lambda messages: sum(len(tokenizer.encode(_text_of(message)).ids) for message in messages)


def _text_of(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text") or "") for part in parts if isinstance(part, dict))


def _length_of(folder: Path) -> int | None:
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


def _cannot_tell(_messages: list[Message]) -> int | None:
    return None
