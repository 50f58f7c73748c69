"""What a server says, read as what it means: a completion, an empty completion, or a failure outside the model.

The one place where answers of chat servers are read. A failure is final where the same request would fail again.
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

_MOST_TOKENS = 2**53  # what every reader of JSON keeps exactly
_THOUGHTS = ("reasoning", "reasoning_content", "thinking")
"""The names that servers have for the thoughts beside a message's content."""
_PLAIN_TEXT = ("text", "output_text")
_THINKING = ("thinking", "reasoning")
_BESIDE_TEXT = ("reference", "redacted_thinking")
"""Parts that hold nothing that the model wrote for a reader: Mistral's citations, Anthropic's sealed thoughts."""
_MOST_NESTED = 8
_SHOWN = 200
_BROKE_OFF = re.compile(
    r"((finish_reason_|\w{1,40}_)?(error|failed|failure|exception|timeout)|abort(ed)?|cancel(l?ed)?|user_cancel|"
    r"timed_out|insufficient_system_resource|overloaded|rate_limit(ed)?|(service_)?unavailable|interrupted|"
    r"disconnect(ed)?|preempted|crashed|out_of_memory|oom|(un)?load)"
)


class ToolCall(NamedTuple):
    """A tool call as the model made it, however malformed: texts that nobody has looked at, empty where missing."""

    id: str
    name: str
    arguments: str
    """JSON, if the model got it right."""

    def to_openai(self) -> dict[str, Any]:
        """Return the call as it stands in a message."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


class Completion(NamedTuple):
    """What the server made of one prompt."""

    text: str
    """Empty where the model said nothing, for whatever reason."""
    reasoning: str | None
    finish_reason: str | None
    usage: Usage
    latency_s: float
    """Seconds of the try that succeeded."""
    calls: int
    """Requests sent, retries included."""
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_key: str = "reasoning_content"
    """The server's own name for the thoughts, under which it takes them back: vLLM, OpenRouter and Ollama say
    `reasoning` (vLLM up to 0.18 passed over any other), SGLang, llama.cpp and DeepSeek `reasoning_content`."""

    stopped_by: str | None = None
    """The text that ended the answer, as the server says it: the model wrote no end. None where it was a token that
    did, or the limit; empty where the server does not say what it was."""
    tokens: SampledTokens | None = None
    """What was sampled, where the server was asked for it and says it."""
    refusal: str | None = None
    """What the server says of a refusal, apart from the text."""

    def stop_text(self, stops: Collection[str]) -> str | None:
        """Return which of the request's texts ended the answer; empty where that is not known, None where none did."""
        if not stops or self.stopped_by is None:
            return None
        return self.stopped_by if self.stopped_by in stops else ""

    @property
    def only_reasoning(self) -> bool:
        """Tell whether the model thought and said nothing: an empty completion."""
        return bool(self.reasoning) and not self.text.strip() and not self.tool_calls


def read_completion(content: bytes, token_source: TokenSource | None = None, *, charset: str = "") -> Completion:
    """Return what an answer's body says, but for the time and the number of requests; with a `token_source` tokens too.

    A choice without text is an empty completion where the model thought, acted or refused, or was ended for a reason.
    Raises `FailedAnswerError` for everything else, and for errors that servers put into a good answer.

    Args:
        content: The body.
        token_source: Whose tokens the answer holds; None where they were not asked for.
        charset: The encoding that the answer's head names, where the body is no UTF-8.
    """
    try:
        answer = parse_body(content, charset)
        choice = _choice(answer)
        message = choice.get("message")
        if message is None:
            message = choice.get("delta") or {"content": choice.get("text")}
        text, thought, refused = _content(message.get("content"))
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
        thoughts = reasoning or thought or None
        usage = _usage(answer.get("usage"))
        return Completion(text, thoughts, finish_reason, usage, 0.0, 0, calls, key, stopped_by, tokens, refusal)
    except FailedAnswerError:
        raise
    except (NotJsonError, LookupError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _malformed(content, error) from None


def _malformed(content: bytes, error: Exception) -> FailedAnswerError:
    page = page_text(content)
    if page or content.lstrip()[:1] == b"<":
        # A page to log in, or of a proxy that knows no such address: the same request meets it again.
        words = f"not a chat completion but a page: {page or content[:_SHOWN].decode('utf-8', 'replace')!r}"
        return FailedAnswerError("malformed_response", words, final=True)
    shown = content[:_SHOWN].decode("utf-8", "replace")
    words = f"not a chat completion ({type(error).__name__}: {str(error)[:_SHOWN]}): {shown!r}"
    return FailedAnswerError("malformed_response", words)


def _choice(answer: Any) -> dict[str, Any]:
    """Return an answer's first choice. Raises `FailedAnswerError` for the error in its place or beside it."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]  # Google's errors
    if is_error(answer.get("error")):
        raise failure_in_answer(answer["error"])
    choices = answer.get("choices")
    if choices is None and (error := error_without_choices(answer)):
        raise failure_in_answer(error)
    if not isinstance(choices, list):
        raise TypeError("choices is no list")
    if not choices:
        raise TypeError("choices is empty")
    choice: dict[str, Any] = next(
        (each for each in choices if isinstance(each, dict) and each.get("index") == 0), choices[0]
    )
    if is_error(choice.get("error")):
        raise failure_in_answer(choice["error"])
    return choice


def _is_broken_off(finish_reason: str) -> bool:
    """Tell whether a finish reason says that the server failed on the way, under any server's name."""
    name = finish_reason.partition(":")[0].strip().rpartition(".")[2].lower().replace("-", "_").replace(" ", "_")
    return _BROKE_OFF.fullmatch(name) is not None and not is_cut_off(finish_reason)


def _name_of(value: Any) -> str | None:
    """Return a finish reason as text, whatever form it has; None where the server gives none."""
    if isinstance(value, Mapping):  # SGLang's own, {"type": "length", "length": 16}
        value = next(
            (value[key] for key in ("type", "reason", "name", "value") if isinstance(value.get(key), str)), None
        )
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value[:200] if isinstance(value, str) and value else None


def _usage(usage: Any) -> Usage:
    """Return the tokens that a server counted; 0 for what is no count."""
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
    """Return the text that ended an answer; None where it was a token, empty where the server does not say.

    vLLM says in `stop_reason`, SGLang in `matched_stop`: the text, the id of a token, or null for the end token.
    """
    stopped_by = next((choice[key] for key in ("stop_reason", "matched_stop") if key in choice), "")
    return stopped_by if isinstance(stopped_by, str) else None


def _content(value: Any) -> tuple[str, str, str]:
    """Return a message's text, and the thoughts and refusals among its parts. Raises `TypeError`."""
    if value is None or isinstance(value, str):
        return value or "", "", ""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise TypeError(f"content is {type(value).__name__}")
    texts: list[str] = []
    thoughts: list[str] = []
    refusals: list[str] = []
    for kind, part in _parts(value):
        (thoughts if kind in _THINKING else refusals if kind == "refusal" else texts).append(_texts_in(part))
    return "".join(texts), "".join(thoughts), "".join(refusals)


def _parts(parts: list[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts that hold text, each with its kind. Raises `TypeError` for one that holds something else."""
    for part in parts:
        if not isinstance(part, dict):
            raise TypeError("content has parts that are no text")
        kind = part.get("type")
        if kind is None and isinstance(part.get("text"), str):
            kind = "text"
        if kind == "refusal":
            yield kind, part.get("refusal")
        elif kind in (*_PLAIN_TEXT, *_THINKING):
            yield kind, part
        elif kind not in _BESIDE_TEXT:
            raise TypeError("content has parts that are no text")


def _reasoning(message: Mapping[str, Any]) -> tuple[str, str]:
    """Return the thoughts beside a message's content, and the name that the server has for them.

    Whatever their form, they are no reason to throw an answer away: what holds no text counts as none.
    """
    for key in _THOUGHTS:
        if text := _texts_in(message.get(key)):
            return text, key
    return _texts_in(message.get("reasoning_details")), _THOUGHTS[0 if "reasoning_details" in message else 1]


def _texts_in(value: Any, depth: int = 0) -> str:
    """Return the text of a part, a list of parts or an object around a text; empty where there is none."""
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
    """Return what the model called; of a call of a wrong shape all of it as its arguments, for the model to be told."""
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
    """Return the one call in OpenAI's older form, which has no id."""
    return _tool_calls({"function": value}) if isinstance(value, dict) and value else ()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else orjson.dumps(value).decode()
