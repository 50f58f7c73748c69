"""Logs of LiteLLM and others: requests with their responses; the outputs of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    chat,
    failure,
    fields,
    first_text,
    objects,
    openai_tools,
    opened,
    text,
    usage,
    verdict,
    with_system,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("litellm", "LiteLlm", "logs of requests and responses, outputs of batches")

_LOGGED = frozenset({"call_type", "request_id", "litellm_call_id", "model_parameters", "startTime", "api_base"})
_ANSWERS = frozenset({"choices", "output", "error"})
_PARAMETERS = ("model_parameters", "optional_params")


class LiteLlm:
    """Reads `{"messages", "response"}` of its standard log, `{"request": {"messages"}, "response"}` of others, batches.

    The output of a batch has answers without their requests: none of them is trained on.
    """

    def is_one(self, document: Any) -> bool:
        """Return whether a row has messages, and a response with choices; or, with the marks of a log, none."""
        if not isinstance(document, dict) or "instance_id" in document:
            return False
        if _is_of_batch(document):
            return True
        if "response" not in document:
            return False
        if _asked(document) is None:
            return False
        response = fields(document["response"])
        return not _ANSWERS.isdisjoint(response) or _is_message(response) or not _LOGGED.isdisjoint(document)

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield one rollout for each choice; a request that failed is one without an answer."""
        document = _as_logged(document) if _is_of_batch(document) else document
        response, request = fields(document["response"]), fields(document.get("request"))
        tokens = fields(response.get("usage"))
        parameters = [request, *(fields(document.get(name)) for name in _PARAMETERS)]
        choices = objects(response.get("choices"))
        model = text(document.get("model")) or text(response.get("model"))
        known = {
            "instance_id": first_text(document, ("id", "request_id", "litellm_call_id")) or origin.made_id,
            "prompt": with_system(_asked(document) or [], request or document),
            # Without its request an answer teaches nothing.
            "trainable": None if _asked(document) else False,
            "tools": next((tools for each in parameters if (tools := openai_tools(each.get("tools")))), None),
            "usage": _usage(tokens) if len(choices) < 2 else None,
            "metadata": {"model": model} if model else None,
            **verdict(document, document.get("metadata")),
        }
        error = _error(document)
        if not error and objects(response.get("output")):  # of OpenAI's Responses
            ends = {"status": "incomplete"} if response.get("status") == "incomplete" else {}
            yield known | {"completion": objects(response["output"]), **ends}
            return
        if not error and _is_message(response):
            answer = {"role": "assistant", "content": response["content"]}
            more: Row = {"stop_reason": text(response.get("stop_reason")), "usage": _usage(tokens)}
            yield known | more | {"completion": [answer]}
            return
        if error or not choices:
            yield known | {"error": error or failure("no_choices", "the response has no choices")}
            return
        for number, choice in enumerate(choices):
            message = {"role": "assistant", **fields(choice.get("message"))}
            reason = text(choice.get("finish_reason"))
            yield known | {"sample_id": number, "completion": [message], "finish_reason": reason}


def _is_of_batch(document: Row) -> bool:
    """Return whether a row is of the output of a batch, as OpenAI, vLLM and Anthropic write it."""
    return "custom_id" in document and not {"response", "result"}.isdisjoint(document)


def _as_logged(document: Row) -> Row:
    """Return a row of a batch as one of a log."""
    result, response = fields(document.get("result")), fields(document.get("response"))
    body = fields(result.get("message")) or fields(response.get("body"))
    error = document.get("error") or result.get("error") or body.get("error")
    request = fields(document.get("request"))
    return document | {
        "id": document["custom_id"],
        "request": fields(request.get("body")) or request,
        "response": body if body and not error else {"error": error or result.get("type") or "no answer"},
    }


def _is_message(response: Row) -> bool:
    """Return whether a response is one of Anthropic's Messages."""
    return response.get("role") == "assistant" and isinstance(response.get("content"), list)


def _usage(tokens: Row) -> Row | None:
    prompt, completion = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
    return usage(*(next((tokens[name] for name in names if name in tokens), None) for names in (prompt, completion)))


def _asked(document: Row) -> Chat | None:
    places = (document, fields(document.get("request")), fields(document.get("proxy_server_request")))
    messages = (chat(fields(place).get("messages")) or _input(fields(place)) for place in places)
    return next((found for found in messages if found), None)


def _input(asked: Row) -> Chat:
    """Return what a request of OpenAI's Responses asks."""
    given = opened(asked.get("input"))
    turns = [{"role": "user", "content": given}] if text(given) else objects(given)
    return with_system(turns, {"system": asked.get("instructions")})


def _error(document: Row) -> Row | None:
    """Return what went wrong, where the log says that something did."""
    known = fields(document.get("error_information"))
    answered = fields(document["response"]).get("error")
    told = fields(answered)
    told = fields(told.get("error")) or told
    message = (
        first_text(known, ("error_message",))
        or first_text(document, ("error_str", "exception"))
        or first_text(told, ("message",))
        or text(answered)
    )
    if document.get("status") != "failure" and message is None and not told:
        return None
    kind = first_text(known, ("error_class", "error_code")) or first_text(told, ("type", "code"))
    return failure(kind or "failure", message)
