"""Parse JSON bodies tolerantly, as servers, gateways and proxies really send them."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_REST = re.compile(r"[\s\0]*(data:\s*)?(\[DONE\])?[\s\0]*")
_EVENT = re.compile(r"\s*(data|event|id|retry)?:")
_COMMENTS = re.compile(r"\A(?:\s*+:[^\n]*+\n)++")
"""Comments that gateways send to keep the connection open while a model thinks, such as DeepSeek's `: keep-alive`."""
_TEXTS = ("content", "reasoning", "reasoning_content", "thinking", "refusal")


class NotJsonError(ValueError):
    """A body that is not JSON."""


def parse_body(content: bytes, charset: str = "") -> Any:
    """Return the JSON value of a body.

    Accepts surrounding white space, a byte order mark, NaN, encodings other than UTF-8, and a trailing `data: [DONE]`.
    Lone surrogates, which models may produce and a journal cannot store, are replaced by `?`. Server-sent events, which
    some servers send although streaming was not requested, are joined to one response.

    Raises `NotJsonError`, and RecursionError for JSON that is nested too deeply.

    Args:
        content: The body.
        charset: Encoding of the `Content-Type` header, used where the body is not UTF-8.
    """
    try:
        return orjson.loads(content)  # nearly every response; the rest of this function is slow
    except orjson.JSONDecodeError as error:
        text = _COMMENTS.sub("", _decode(content, charset)).strip(" \t\r\n\0")
        if not text:
            raise NotJsonError(str(error)) from None
    if _EVENT.match(text):
        return _join_events(text)
    try:
        parsed, end = json.JSONDecoder().raw_decode(text)
        if not _REST.fullmatch(text, end):
            raise NotJsonError(f"more follows the JSON at character {end}")
        return _without_surrogates(parsed)
    except ValueError as error:
        raise NotJsonError(str(error)) from None


def _decode(content: bytes, charset: str) -> str:
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding, "replace")
    for encoding in ("utf-8", charset or "latin-1"):
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return content.decode("latin-1")


def _without_surrogates(parsed: Any) -> Any:
    return json.loads(json.dumps(parsed, ensure_ascii=False).encode("utf-8", "replace"))


def _join_events(text: str) -> dict[str, Any]:
    """Join the events of a stream to the response that they are parts of. Raises `NotJsonError`."""
    joined: dict[str, Any] = {}
    choice: dict[str, Any] = {}
    texts: dict[str, list[str]] = {}
    calls: dict[int, list[Mapping[str, Any]]] = {}
    ended = False
    for data in _data(text):
        if data == "[DONE]":
            ended = True
            break
        try:
            event = _without_surrogates(json.loads(data))
        except ValueError as error:
            raise NotJsonError(f"an event is not JSON: {error}") from None
        if not isinstance(event, dict):
            raise NotJsonError("an event is not an object")
        joined |= {key: value for key, value in event.items() if key != "choices" and value is not None}
        choices = event.get("choices")
        for each in choices if isinstance(choices, list) else []:
            if isinstance(each, dict) and not each.get("index"):  # the first choice
                _add_delta(each, choice, texts, calls)
    if not (ended or choice.get("finish_reason") or joined.get("error")):
        raise NotJsonError("a stream that breaks off before its end")
    if choice or texts or calls:
        message = {name: "".join(pieces) for name, pieces in texts.items()}
        listed = [_join_call(pieces) for _, pieces in sorted(calls.items())]
        choice.setdefault("message", {"content": None} | message | ({"tool_calls": listed} if listed else {}))
        joined["choices"] = [choice]
    return joined


def _data(text: str) -> Iterator[str]:
    """Yield the data of each server-sent event; several `data:` lines belong to one event."""
    lines: list[str] = []
    for line in text.split("\n"):  # not `splitlines`: U+2028 may stand in a JSON text
        name, _, value = line.partition(":")
        if not line.strip() and lines:
            yield "\n".join(lines).strip()
            lines = []
        elif name.strip() == "data":
            lines.append(value)
    if lines:
        yield "\n".join(lines).strip()


def _add_delta(
    event: Mapping[str, Any], choice: dict[str, Any], texts: dict[str, list[str]], calls: dict[int, list[Any]]
) -> None:
    """Add the choice of one event to what earlier events contained.

    Args:
        event: The choice of the event, with a `delta`.
        choice: Fields of the choice so far, without its message.
        texts: Pieces of the message's text fields so far, by name.
        calls: Pieces of its tool calls so far, by index.
    """
    choice |= {key: value for key, value in event.items() if key != "delta" and value is not None}
    delta = event.get("delta")
    if not isinstance(delta, dict):
        return
    for name in _TEXTS:
        value = delta.get(name)
        if isinstance(value, list):
            value = "".join(str(part.get("text") or "") for part in value if isinstance(part, dict))
        if isinstance(value, str):
            texts.setdefault(name, []).append(value)
    listed = delta.get("tool_calls")
    for call in listed if isinstance(listed, list) else []:
        if isinstance(call, dict):
            index = call.get("index")
            calls.setdefault(index if type(index) is int else len(calls), []).append(call)


def _join_call(pieces: list[Mapping[str, Any]]) -> dict[str, Any]:
    functions = [piece["function"] for piece in pieces if isinstance(piece.get("function"), dict)]
    names = ("name", "arguments")
    joined = {name: "".join(str(each[name]) for each in functions if each.get(name) is not None) for name in names}
    return {"id": next((piece["id"] for piece in pieces if piece.get("id")), ""), "function": joined}
