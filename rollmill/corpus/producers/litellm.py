"""Logs of requests with their responses, of LiteLLM and others, and the outputs of batches."""

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
    parse_json_text,
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
    """Reads `{"messages", "response"}` of LiteLLM, `{"request": {"messages"}, "response"}` of others, and batches.

    The output of a batch has answers without their requests: these are not trained on.
    """

    def recognizes(self, document: Any) -> bool:
        """Return whether a row has messages, and a response with an answer; or, with other fields of a log, none."""
        if not isinstance(document, dict) or "instance_id" in document:
            return False
        if _is_of_batch(document):
            return True
        if "response" not in document:
            return False
        if _request_messages(document) is None:
            return False
        response = fields(document["response"])
        return not _ANSWERS.isdisjoint(response) or _is_message(response) or not _LOGGED.isdisjoint(document)

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield one rollout for each choice of a response; for a failed request one without an answer."""
        document = _as_logged(document) if _is_of_batch(document) else document
        response, request = fields(document["response"]), fields(document.get("request"))
        tokens = fields(response.get("usage"))
        parameters = [request, *(fields(document.get(name)) for name in _PARAMETERS)]
        choices = objects(response.get("choices"))
        model = text(document.get("model")) or text(response.get("model"))
        known = {
            "instance_id": first_text(document, ("id", "request_id", "litellm_call_id")) or origin.generated_id,
            "prompt": with_system(_request_messages(document) or [], request or document),
            # An answer without its request is not trained on.
            "trainable": None if _request_messages(document) else False,
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
    """Return whether a row is from the output of a batch, as OpenAI, vLLM and Anthropic write it."""
    return "custom_id" in document and not {"response", "result"}.isdisjoint(document)


def _as_logged(document: Row) -> Row:
    """Return a row of a batch in the form of a log's row."""
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
    """Return whether a response is one of Anthropic's Messages API."""
    return response.get("role") == "assistant" and isinstance(response.get("content"), list)


def _usage(tokens: Row) -> Row | None:
    prompt, completion = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
    return usage(*(next((tokens[name] for name in names if name in tokens), None) for names in (prompt, completion)))


def _request_messages(document: Row) -> Chat | None:
    """Return the messages of the request; None where there are none."""
    requests = (document, fields(document.get("request")), fields(document.get("proxy_server_request")))
    conversations = (chat(request.get("messages")) or _input(request) for request in requests)
    return next((messages for messages in conversations if messages), None)


def _input(request: Row) -> Chat:
    """Return the input of a request of OpenAI's Responses as messages."""
    content = parse_json_text(request.get("input"))
    turns = [{"role": "user", "content": content}] if text(content) else objects(content)
    return with_system(turns, {"system": request.get("instructions")})


def _error(document: Row) -> Row | None:
    """Return the `error` of a failed request; None where it did not fail."""
    known = fields(document.get("error_information"))
    response_error = fields(document["response"]).get("error")
    details = fields(response_error)
    details = fields(details.get("error")) or details
    message = (
        first_text(known, ("error_message",))
        or first_text(document, ("error_str", "exception"))
        or first_text(details, ("message",))
        or text(response_error)
    )
    if document.get("status") != "failure" and message is None and not details:
        return None
    kind = first_text(known, ("error_class", "error_code")) or first_text(details, ("type", "code"))
    return failure(kind or "failure", message)
