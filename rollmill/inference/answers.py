"""Parse responses of chat servers: into a completion, an empty completion, or a failure outside the model.

All variants of the OpenAI format that servers use are handled here. A failure is final where the same request would
fail again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from rollmill.inference.json_body import NotJsonError, parse_body
from rollmill.inference.sampled_tokens import SampledTokens, TokenSource, read_sampled_tokens
from rollmill.inference.server_errors import (
    FailedAnswerError,
    error_without_choices,
    failure_in_answer,
    is_error,
    page_text,
)
from rollmill.records import Usage, is_cut_off

_MOST_TOKENS = 2**53  # integers up to this are exact in every JSON parser
_REASONING_KEYS = ("reasoning", "reasoning_content", "thinking")
"""The keys under which servers put a message's reasoning content."""
_PLAIN_TEXT = ("text", "output_text")
_THINKING = ("thinking", "reasoning")
_IGNORED_PARTS = ("reference", "redacted_thinking")
"""Content parts without text for the reader: Mistral's citations, Anthropic's encrypted reasoning."""
_MOST_NESTED = 8
_SHOWN = 200
_BROKE_OFF = re.compile(
    r"((finish_reason_|\w{1,40}_)?(error|failed|failure|exception|timeout)|abort(ed)?|cancel(l?ed)?|user_cancel|"
    r"timed_out|insufficient_system_resource|overloaded|rate_limit(ed)?|(service_)?unavailable|interrupted|"
    r"disconnect(ed)?|preempted|crashed|out_of_memory|oom|(un)?load)"
)
"""Finish reasons that mean that the server failed while generating."""


class ToolCall(NamedTuple):
    """A tool call as the model wrote it, not validated; missing fields are empty."""

    id: str
    name: str
    arguments: str
    """Usually JSON; a model may write anything."""

    def to_openai(self) -> dict[str, Any]:
        """Return the call in the format of OpenAI messages."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Completion(NamedTuple):
    """A server's response to one prompt."""

    text: str
    """Empty where the model wrote no content."""
    reasoning: str | None
    finish_reason: str | None
    usage: Usage
    latency_s: float
    """Seconds that the successful request took."""
    calls: int
    """Requests sent, retries included."""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_key: str = "reasoning_content"
    """The server's key for reasoning content, under which it accepts it in later requests: `reasoning` in vLLM (which
    ignored any other up to 0.18), OpenRouter and Ollama; `reasoning_content` in SGLang, llama.cpp and DeepSeek."""

    stopped_by: str | None = None
    """The stop string that ended the completion, so that there is no end token. None where an end token or the limit
    did; empty where the server does not report it."""
    tokens: SampledTokens | None = None
    """Sampled token ids, where they were requested and the server returned them."""
    refusal: str | None = None
    """The message's `refusal` field."""

    def stop_text(self, stops: Collection[str]) -> str | None:
        """Return the stop string of the request that ended the completion: None if none did, empty if not known."""
        if not stops or self.stopped_by is None:
            return None
        return self.stopped_by if self.stopped_by in stops else ""

    @property
    def only_reasoning(self) -> bool:
        """Return whether there is reasoning content but neither text nor a tool call."""
        return bool(self.reasoning) and not self.text.strip() and not self.tool_calls


def read_completion(content: bytes, token_source: TokenSource | None = None, *, charset: str = "") -> Completion:
    """Parse the body of a successful response; latency and number of requests are left at 0.

    A choice without text is an empty completion if it has reasoning, tool calls, a refusal or a finish reason. Raises
    `FailedAnswerError` for everything else, and for errors that servers report with status 200.

    Args:
        content: Body of the response.
        token_source: Tokenizer and kind of logprobs of the recorded tokens; None where tokens were not requested.
        charset: Encoding of the `Content-Type` header, used where the body is not UTF-8.
    """
    try:
        answer = parse_body(content, charset)
        choice = _choice(answer)
        message = choice.get("message")
        if message is None:
            # Streaming and legacy completion formats, which some gateways answer with.
            message = choice.get("delta") or {"content": choice.get("text")}
        text, inline_reasoning, refused = _content(message.get("content"))
        reasoning, key = _reasoning(message)
        finish_reason = _name_of(choice.get("finish_reason")) or _name_of(choice.get("native_finish_reason"))
        if finish_reason is not None and _is_broken_off(finish_reason):
            shown = f", after {text[:_SHOWN]!r}" if text else ""
            raise FailedAnswerError(
                "server_error", f"the answer broke off: finish_reason {finish_reason[:80]!r}{shown}"
            )
        calls = _tool_calls(message.get("tool_calls")) or _function_call(message.get("function_call"))
        refusal = _texts_in(message.get("refusal")) or refused or None
        if not (message.get("content") is not None or reasoning or calls or refusal or finish_reason):
            raise TypeError("there is no content, and no finish_reason")
        tokens = None if token_source is None else read_sampled_tokens(answer, choice, token_source)
        stopped_by = None if is_cut_off(finish_reason) else _stopped_by(choice)
        return Completion(
            text=text,
            reasoning=reasoning or inline_reasoning or None,
            finish_reason=finish_reason,
            usage=_usage(answer.get("usage")),
            latency_s=0.0,
            calls=0,
            tool_calls=calls,
            reasoning_key=key,
            stopped_by=stopped_by,
            tokens=tokens,
            refusal=refusal,
        )
    except FailedAnswerError:
        raise
    except (NotJsonError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _malformed(content, error) from None


def _malformed(content: bytes, error: Exception) -> FailedAnswerError:
    page = page_text(content)
    if page or content.lstrip()[:1] == b"<":
        # A login page, or a proxy's error page: the same request would get it again.
        message = f"not a chat completion but a page: {page or content[:_SHOWN].decode('utf-8', 'replace')!r}"
        return FailedAnswerError("malformed_response", message, final=True)
    shown = content[:_SHOWN].decode("utf-8", "replace")
    message = f"not a chat completion ({type(error).__name__}: {str(error)[:_SHOWN]}): {shown!r}"
    return FailedAnswerError("malformed_response", message)


def _choice(answer: Any) -> dict[str, Any]:
    """Return the first choice of a response. Raises `FailedAnswerError` for an error in place of it, or within it."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]  # Google's errors
    if is_error(answer.get("error")):
        raise failure_in_answer(answer["error"])
    choices = answer.get("choices")
    if choices is None and (error := error_without_choices(answer)):
        raise failure_in_answer(error)
    if not isinstance(choices, list):
        raise TypeError("choices is not a list")
    if not choices:
        raise TypeError("choices is empty")
    choice: dict[str, Any] = next(
        (each for each in choices if isinstance(each, dict) and each.get("index") == 0), choices[0]
    )
    if is_error(choice.get("error")):
        raise failure_in_answer(choice["error"])
    return choice


def _is_broken_off(finish_reason: str) -> bool:
    """Return whether a finish reason means that the server failed while generating, in any server's terms."""
    name = finish_reason.partition(":")[0].strip().rpartition(".")[2].lower().replace("-", "_").replace(" ", "_")
    return _BROKE_OFF.fullmatch(name) is not None and not is_cut_off(finish_reason)


def _name_of(value: Any) -> str | None:
    """Return a finish reason as text, whatever its type; None where there is none."""
    if isinstance(value, Mapping):  # SGLang's native format, {"type": "length", "length": 16}
        value = next(
            (value[key] for key in ("type", "reason", "name", "value") if isinstance(value.get(key), str)), None
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value[:200] if isinstance(value, str) and value else None


def _usage(usage: Any) -> Usage:
    """Return the server's token counts; 0 for missing or invalid ones."""
    counts = usage if isinstance(usage, Mapping) else {}
    return Usage(
        prompt_tokens=_count(counts.get("prompt_tokens")), completion_tokens=_count(counts.get("completion_tokens"))
    )


def _count(value: Any) -> int:
    if type(value) is int:
        return value if 0 <= value <= _MOST_TOKENS else 0
    try:
        count = int(float(value)) if isinstance(value, float | str) else 0
    except (ValueError, OverflowError):
        return 0
    return count if 0 <= count <= _MOST_TOKENS else 0


def _stopped_by(choice: Mapping[str, Any]) -> str | None:
    """Return the stop string that ended a completion; None where a token did, empty where it is not reported.

    vLLM reports it in `stop_reason`, SGLang in `matched_stop`: a string, a token id, or null for the end token.
    """
    stopped_by = next((choice[key] for key in ("stop_reason", "matched_stop") if key in choice), "")
    return stopped_by if isinstance(stopped_by, str) else None


def _content(value: Any) -> tuple[str, str, str]:
    """Return a message's text, and the reasoning and refusals among its parts. Raises `TypeError` for other types."""
    if value is None or isinstance(value, str):
        return value or "", "", ""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise TypeError(f"content is {type(value).__name__}")
    texts = {"text": "", "reasoning": "", "refusal": ""}
    for kind, part in _parts(value):
        if kind in _THINKING:
            kind = "reasoning"
        texts[kind if kind in texts else "text"] += _texts_in(part)
    return texts["text"], texts["reasoning"], texts["refusal"]


def _parts(parts: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the text parts with their kinds. Raises `TypeError` for parts of other kinds, such as images."""
    for part in parts:
        if not isinstance(part, dict):
            raise TypeError("content has parts that are not text")
        kind = part.get("type")
        if kind is None and isinstance(part.get("text"), str):
            kind = "text"
        if kind == "refusal":
            yield kind, part.get("refusal")
        elif kind in (*_PLAIN_TEXT, *_THINKING):
            yield kind, part
        elif kind not in _IGNORED_PARTS:
            raise TypeError("content has parts that are not text")


def _reasoning(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return a message's reasoning content and the server's key for it.

    Never raises: reasoning in an unknown format counts as none, so that the completion is kept.
    """
    for key in _REASONING_KEYS:
        if text := _texts_in(message.get(key)):
            return text, key
    # OpenRouter's `reasoning_details` come back under `reasoning`.
    return _texts_in(message.get("reasoning_details")), _REASONING_KEYS[0 if "reasoning_details" in message else 1]


def _texts_in(value: Any, depth: int = 0) -> str:
    """Return the text within a part, a list of parts or nested objects; empty where there is none."""
    if isinstance(value, str):
        return value
    if depth > _MOST_NESTED:
        return ""
    if isinstance(value, list):
        return "".join(_texts_in(part, depth + 1) for part in value)
    if isinstance(value, dict):
        keys = ("text", "thinking", "reasoning", "content", "summary")
        return next((text for key in keys if (text := _texts_in(value.get(key), depth + 1))), "")
    return ""


def _tool_calls(value: Any) -> tuple[ToolCall, ...]:
    """Return the tool calls; a malformed call becomes its own arguments, so that it can be shown to the model."""
    calls = []
    for call in (value if isinstance(value, list) else [value]) if value else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            calls.append(
                ToolCall(*(_text(field) for field in (call.get("id"), function.get("name"), function.get("arguments"))))
            )
        else:
            calls.append(ToolCall("", "", _text(call)))
    return tuple(calls)


def _function_call(value: Any) -> tuple[ToolCall, ...]:
    """Return the call in OpenAI's older `function_call` format, which has no id."""
    return _tool_calls({"function": value}) if isinstance(value, dict) and value else ()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else orjson.dumps(value).decode()
