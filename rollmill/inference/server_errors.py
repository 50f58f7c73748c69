"""Interpret servers' error responses: extract the message, and decide whether the same request would fail again."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import orjson

from rollmill.inference.answer_body import message_text
from rollmill.inference.json_body import NotJsonError, parse_body

_MOST_NESTED = 8
_WORDS = ("message", "Message", "msg", "status_msg", "detail", "description", "reason", "error", "errors")
_NAMES = ("code", "status", "type", "error_code", "status_code", "statusCode", "error_type", "__type")
_RETRIED_STATUSES = frozenset({408, 409, 424, 425, 429})
"""424 is how TGI and Bedrock say that the model failed."""
_FINAL_STATUSES = frozenset({501, 505, 511})
_AMBIGUOUS_STATUSES = (400, 498)
"""Statuses that are also used for overload or an unloaded model, which only the message shows: AWS, LM Studio, Groq."""
_TYPE = re.compile(r"[a-z][a-z0-9_]{2,39}")
_TAGS = re.compile(r"(?is)<(script|style)\b.*?(</\1\s*>|\Z)|<!--.*?(-->|\Z)|<[^>]{0,2000}>")
_FINAL_WORDS = re.compile(
    r"(insufficient|exceeded_current)_(quota|credits?|balance|funds)(_error)?|billing_\w+|payment_required|arrearage|"
    r"account_(deactivated|suspended|disabled)|invalid_\w+|authentication\w*|unauthori[sz]ed|unauthenticated|"
    r"permission\w*|forbidden|(\w+_)?not_found(_error)?|unsupported_\w+|bad_request\w*|failed_precondition|"
    r"(exceed_)?context_(length|size|window)(_exceeded|_size_error|_error)?|content_policy_violation|access_denied"
)
_NO_ENDPOINT = re.compile(r"unexpected endpoint or method", re.IGNORECASE)
_OVERLOADED = re.compile(
    r"throttl\w*|too many (concurrent )?requests|overloaded|over capacity|capacity[ _]exceeded|"
    r"model (has )?(crashed|unloaded)",
    re.IGNORECASE,
)
_SPENT = re.compile(
    r"insufficient[ _](credit|balance|fund|quota)|out of credits|exceeded_current_quota|"
    r"billing_(hard_limit|not_active)|arrearage|credit balance is too low|budget[ _](has been )?exceeded|"
    r"account (is |has been )?(not active|suspended|deactivated)",
    re.IGNORECASE,
)
"""Messages of an empty or closed account, for which servers use the same status as for a rate limit."""
# vLLM, SGLang, llama.cpp, TGI and OpenAI each have their own wording, some of them several.
_TOO_LONG = re.compile(
    r"context[ _]?(length|size|window)|maximum model length|maximum (input|sequence) length|max_model_len|"
    r"(prompt|input) is too long|inputs.{0,40}tokens.{0,40}must be <=|token count.{0,60}exceeds the maximum|"
    r"number of tokens.{0,60}(cannot|must not) exceed|reduce the length of (the|your) (messages|prompt|input)",
    re.IGNORECASE,
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_STATUS = re.compile(r"([45]\d\d)(?!\w)")
_STATUS_IN_WORDS = re.compile(r"(?i)\b(?:error|status)[ _]?code:? ([45]\d\d)\b")


class FailedAnswerError(Exception):
    """A response that is not a completion.

    Args:
        type_: A word by which failures are counted, such as `http_503`.
        message: The server's message.
        final: Whether the same request would fail again.
        named: Fields of the request that the error names.
    """

    def __init__(self, type_: str, message: str, *, final: bool = False, named: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.named = named
        self.type = type_
        self.message = message
        self.final = final


def read_error(status: int, content: bytes) -> FailedAnswerError:
    """Return the failure for a response with a status other than 2xx, with the server's message."""
    error = _error_object(content)
    message, names = server_message(content), _names_in(error)
    final = _is_final(status, names, message)
    if final and status == 429 and not is_quota_exhausted(message):
        message = f"{message} ({next(name for name in names if is_quota_exhausted(name))})"
    return FailedAnswerError(f"http_{status}", message, final=final, named=_fields_named_in(error))


def is_quota_exhausted(message: str) -> bool:
    """Return whether a server's message says that the account is empty or closed."""
    return _SPENT.search(message) is not None


def is_too_long(message: str) -> bool:
    """Return whether a server's message says that a request has more tokens than the model's context."""
    return _TOO_LONG.search(message) is not None


def server_message(content: bytes) -> str:
    """Return the message in an error body, the text of an HTML page, or the beginning of the body.

    OpenAI, vLLM and FastAPI each have it under another key.
    """
    if page := page_text(content):
        return page
    return message_text(_words_in(_error_object(content)), content[:500])


def page_text(content: bytes) -> str:
    """Return the text of an HTML page; empty for other content."""
    start = content[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not start.startswith((b"<!doctype", b"<html", b"<head", b"<body", b"<title", b"<?xml", b"<!--", b"<center")):
        return ""
    text = html.unescape(_TAGS.sub(" ", content[: 1 << 16].decode("utf-8", "replace")))
    return " ".join(text.split())[:500]


def is_error(value: Any) -> bool:
    """Return whether the value of a key `error` is an error: some servers always send the key, empty or with code 0."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "none", "null")
    if isinstance(value, dict):
        return (
            bool(_words_in(value)) or value.get("code") not in (None, 0, "0", "", 200, "200") or bool(value.get("type"))
        )
    return bool(value)


def error_without_choices(answer: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the error of a response without choices, such as older vLLM's; None where there is no message in it."""
    error = answer.get("base_resp", answer)  # MiniMax's key
    return error if isinstance(error, Mapping) and _words_in(error) else None


def failure_in_answer(error: Any) -> FailedAnswerError:
    """Return the failure for an error in a response with status 200; its code is treated as a status."""
    message = message_text(_words_in(error), orjson.dumps(error, default=str)[:500])
    names = _names_in(error)
    code = next((int(match[1]) for name in names if (match := _STATUS.match(name))), None)
    if code is None and (match := _STATUS_IN_WORDS.search(message)):
        code = int(match[1])
    named = next((name for name in names if _TYPE.fullmatch(name)), "server_error")
    type_ = named if code is None else f"http_{code}"
    final = _is_final(code, names, message)
    return FailedAnswerError(
        type_, f"an error inside the answer: {message}", final=final, named=_fields_named_in(error)
    )


def _is_final(code: int | None, names: Collection[str], message: str) -> bool:
    """Return whether the same request would fail again.

    Args:
        code: HTTP status, or the error's code; None where there is neither.
        names: The error's codes and types, in lower case.
        message: Its message.
    """
    if is_quota_exhausted(message) or any(is_quota_exhausted(name) for name in names) or code in _FINAL_STATUSES:
        return True
    if code in _AMBIGUOUS_STATUSES and not is_too_long(message):
        return not (_OVERLOADED.search(message) or any(_OVERLOADED.search(name) for name in names))
    if code is not None and code < 500 and code not in _RETRIED_STATUSES:
        return True
    if code == 429:
        return False
    if is_too_long(message) or _NO_ENDPOINT.search(message):
        return True
    return code is None and any(_FINAL_WORDS.fullmatch(name) for name in names)


def _names_in(error: Any) -> list[str]:
    """Return an error's codes and types, in snake_case."""
    values = [error.get(key) for key in _NAMES] if isinstance(error, Mapping) else []
    texts = [str(value)[:200].strip() for value in values if isinstance(value, str | int | float)]
    return [_CAMEL.sub("_", text.rpartition("#")[2])[:80].lower() for text in texts if text]


def _fields_named_in(error: Any) -> tuple[str, ...]:
    """Return the fields of the request that an error names: OpenAI in `param`, FastAPI in `loc`."""
    if not isinstance(error, Mapping):
        return ()
    param, message = error.get("param"), error.get("message")
    details = message.get("detail") if isinstance(message, Mapping) else error.get("detail")  # Mistral, else FastAPI
    named = [param] if isinstance(param, str) else []
    for detail in details if isinstance(details, list) else []:
        location = detail.get("loc") if isinstance(detail, Mapping) else None
        named += [str(each) for each in location if each != "body"] if isinstance(location, list) else []
    return tuple(name.rpartition(".")[2][:80] for name in named[:20])


def _error_object(content: bytes) -> Any:
    """Return the error object in a body, or the whole body; None where it is not JSON."""
    try:
        body = parse_body(content)
    except (NotJsonError, RecursionError):
        return None
    if isinstance(body, list) and body:
        body = body[0]  # Google wraps errors in a list
    return (body.get("error") or body) if isinstance(body, dict) else None


def _words_in(error: Any, depth: int = 0) -> str:
    """Return an error's message, with the upstream server's where a gateway passes it on; empty for none."""
    if isinstance(error, str):
        return error
    if isinstance(error, list) and len(error) == 1 and isinstance(error[0], Mapping) and "loc" not in error[0]:
        return _words_in(error[0], depth + 1) or str(error)[:1000]
    if not isinstance(error, Mapping) or depth > _MOST_NESTED:
        with suppress(RecursionError):
            return str(error) if isinstance(error, list) and error else ""
        return ""
    message = next((text for key in _WORDS if (text := _words_in(error.get(key), depth + 1))), "")
    metadata = error.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
    return f"{message}: {raw[:1000]}" if message and isinstance(raw, str) and raw not in message else message
