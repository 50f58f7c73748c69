"""Lengths of conversations in tokens, rendered by the tokenizer's chat template as in training."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import orjson

from rollmill.errors import InputError

_REASONING = "reasoning_content"
_READ_NAMES = (_REASONING, "reasoning", "thinking")


class ContextualChat(list[dict[str, Any]]):
    """Messages with the other arguments of their chat template.

    Args:
        messages: the messages.
        context: `tools` and `chat_template_kwargs`, where there are any.
        reasoning_dropped: whether requests left out the reasoning of earlier turns.
    """

    def __init__(
        self, messages: Iterable[dict[str, Any]], context: Mapping[str, Any], *, reasoning_dropped: bool = False
    ) -> None:
        super().__init__(messages)
        self.tools: list[Any] | None = context.get("tools")
        self.options: dict[str, Any] = context.get("chat_template_kwargs") or {}
        if reasoning_dropped:
            self[:-1] = [{key: value for key, value in each.items() if key != _REASONING} for each in self[:-1]]


class TokenCounter:
    """Counts the tokens of conversations with a tokenizer of the hub or of a local directory."""

    def __init__(self, tokenizer: str) -> None:
        """Load the tokenizer. Raises `InputError` where `transformers` cannot."""
        from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
        except Exception as error:  # the hub, files and tokenizers raise types of their own
            raise InputError(
                f"cannot load the tokenizer {tokenizer}, tried as a directory and as a model of the Hugging Face hub: "
                f"{error}; name one with tokenizer files, and set HF_TOKEN where the model is gated"
            ) from error
        # The Rust tokenizer gives lengths without making Python lists of ids. Some files configure it to truncate or
        # pad.
        self._backend: Any = getattr(self._tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            self._backend.no_truncation()
            self._backend.no_padding()
        self.without_template = 0
        """Number of conversations counted without a template: the tokenizer has none, or it refused them."""

    def count(self, conversations: Sequence[list[dict[str, Any]]]) -> list[int]:
        """Return the length of each conversation in tokens, chat template included.

        Messages have `role`, `content`, `tool_calls`, ... Contents may be text, null, or a list of parts, of which only
        text counts. Text of the template counts, further special tokens do not. A conversation that the template
        refuses counts as its contents, with line breaks between them. A `ContextualChat` is rendered with its tools and
        arguments. Reasoning counts under whatever name the template reads it; that of the last turn also where the
        template leaves it out, since training adds them after the prompt.
        """
        texts = [self._text(conversation) for conversation in conversations]
        if not texts:
            return []
        if self._backend is not None:
            return [len(encoding) for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        return [len(ids) for ids in self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]

    def _text(self, conversation: list[dict[str, Any]]) -> str:
        name = self._reasoning_name
        messages = [_template_message(message, name) for message in conversation]
        context = conversation if isinstance(conversation, ContextualChat) else ContextualChat((), {})
        text = self._render(messages, context)
        reasoning = messages[-1].get(name) if messages else None
        reasoning = reasoning.strip() if isinstance(reasoning, str) else ""
        return text if reasoning in text else f"{reasoning}\n{text}"

    @cached_property
    def _reasoning_name(self) -> str:
        """Return the message field from which the template reads reasoning."""
        source = str(self._tokenizer.chat_template or "")
        return next((name for name in _READ_NAMES if re.search(rf"\b{name}\b", source)), _REASONING)

    def _render(self, conversation: list[dict[str, Any]], context: ContextualChat) -> str:
        if self._tokenizer.chat_template and conversation:
            try:
                return str(
                    self._tokenizer.apply_chat_template(
                        conversation, tools=context.tools, tokenize=False, **context.options
                    )
                )
            except Exception:  # noqa: S110  # a template is a program of its own: it may raise anything
                pass
        self.without_template += 1
        return "\n".join(message["content"] for message in conversation)


def _template_message(message: dict[str, Any], reasoning_name: str) -> dict[str, Any]:
    """Return a message as templates expect it: content as text, arguments of tool calls as objects."""
    calls = message.get("tool_calls")
    plain = {**message, "content": "\n".join(_texts(message.get("content")))}
    if _REASONING in plain:
        plain[reasoning_name] = plain.pop(_REASONING)
    return {**plain, "tool_calls": [_call(call) for call in calls]} if isinstance(calls, list) else plain


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    return [text for text in texts if isinstance(text, str)]


def _call(call: Any) -> Any:
    """Return a tool call whose arguments, JSON text in OpenAI's format, are an object again."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), str):
        return call
    try:
        return {**call, "function": {**function, "arguments": orjson.loads(function["arguments"])}}
    except orjson.JSONDecodeError:
        return call
