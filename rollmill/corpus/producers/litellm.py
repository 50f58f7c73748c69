"""Import logs of requests with their responses, of LiteLLM and others, and output files of Batch APIs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    add_system_prompt,
    as_chat,
    as_dict,
    as_dicts,
    as_text,
    find_verdict,
    first_text,
    make_failure,
    make_usage,
    openai_tools,
    parse_json_text,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("litellm", "LiteLlm", "logs of requests and responses, Batch API output files")

_LOG_FIELDS = frozenset({"call_type", "request_id", "litellm_call_id", "model_parameters", "startTime", "api_base"})
"""Fields that only logs of requests have."""
_ANSWERS = frozenset({"choices", "output", "error"})
_PARAMETER_FIELDS = ("model_parameters", "optional_params")


class LiteLlm:
    """Reads `{"messages", "response"}` of LiteLLM, `{"request": {...}, "response"}` of others, and batch outputs.

    The output of a batch usually lacks the requests. Answers without their request become rollouts, so that they are
    counted and can be viewed, but are not trained on.
    """

    def recognizes(self, document: Any) -> bool:
        """Return whether a row is a logged request.

        It has messages, and a response with an answer; without an answer it has a field of `_LOG_FIELDS`. A row of a
        Batch API output is one, too.
        """
        if not isinstance(document, dict) or "instance_id" in document:  # rollmill's own rows have an `instance_id`
            return False
        if _is_batch_output(document):
            return True
        if "response" not in document:
            return False
        if _request_messages(document) is None:
            return False
        response = as_dict(document["response"])
        has_answer = not _ANSWERS.isdisjoint(response) or _is_anthropic_response(response)
        return has_answer or not _LOG_FIELDS.isdisjoint(document)

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield one rollout for each choice of a response; for a failed request one without an answer."""
        document = _as_log_row(document) if _is_batch_output(document) else document
        response, request = as_dict(document["response"]), as_dict(document.get("request"))
        tokens = as_dict(response.get("usage"))
        parameters = [request, *(as_dict(document.get(name)) for name in _PARAMETER_FIELDS)]
        choices = as_dicts(response.get("choices"))
        model = as_text(document.get("model")) or as_text(response.get("model"))
        messages = _request_messages(document)
        tools = (openai_tools(each.get("tools")) for each in parameters)
        shared = {
            "instance_id": first_text(document, ("id", "request_id", "litellm_call_id")) or origin.generated_id,
            "prompt": add_system_prompt(messages or [], request or document),
            # An answer without its request is not trained on.
            "trainable": None if messages else False,
            "tools": next(filter(None, tools), None),
            # The usage is the sum over all choices: that of one is not known if there are several.
            "usage": _usage(tokens) if len(choices) < 2 else None,
            "metadata": {"model": model} if model else None,
            **find_verdict(document, document.get("metadata")),
        }
        error = _failure(document)
        if not error and as_dicts(response.get("output")):  # of OpenAI's Responses API
            # A record with this status was cut off at a limit on tokens.
            ending = {"status": "incomplete"} if response.get("status") == "incomplete" else {}
            yield shared | {"completion": as_dicts(response["output"]), **ending}
            return
        if not error and _is_anthropic_response(response):
            answer = {"role": "assistant", "content": response["content"]}
            yield shared | {"completion": [answer], "stop_reason": as_text(response.get("stop_reason"))}
            return
        if error or not choices:
            yield shared | {"error": error or make_failure("no_choices", "the response has no choices")}
            return
        for number, choice in enumerate(choices):
            message = {"role": "assistant", **as_dict(choice.get("message"))}
            reason = as_text(choice.get("finish_reason"))
            yield shared | {"sample_id": number, "completion": [message], "finish_reason": reason}


def _is_batch_output(document: Row) -> bool:
    """Return whether a row is from a Batch API output file, as OpenAI, vLLM and Anthropic write it."""
    return "custom_id" in document and not {"response", "result"}.isdisjoint(document)


def _as_log_row(document: Row) -> Row:
    """Return a row of a Batch API output in the form of a log's row."""
    result, response = as_dict(document.get("result")), as_dict(document.get("response"))
    body = as_dict(result.get("message")) or as_dict(response.get("body"))
    error = document.get("error") or result.get("error") or body.get("error")
    request = as_dict(document.get("request"))
    # Without any `error`, the `type` of Anthropic's `result` tells what happened ("errored", "expired", "canceled").
    return document | {
        "id": document["custom_id"],
        "request": as_dict(request.get("body")) or request,
        "response": body if body and not error else {"error": error or result.get("type") or "no answer"},
    }


def _is_anthropic_response(response: Row) -> bool:
    """Return whether a response is one of Anthropic's Messages API."""
    return response.get("role") == "assistant" and isinstance(response.get("content"), list)


def _usage(tokens: Row) -> Row | None:
    """Return the token counts under OpenAI's names, or those of Anthropic and the Responses API."""
    prompt = tokens.get("prompt_tokens", tokens.get("input_tokens"))
    completion = tokens.get("completion_tokens", tokens.get("output_tokens"))
    return make_usage(prompt, completion)


def _request_messages(document: Row) -> Chat | None:
    """Return the messages of the request, with the system prompt beside them; None where there are none."""
    requests = (document, as_dict(document.get("request")), as_dict(document.get("proxy_server_request")))
    for request in requests:
        if messages := as_chat(request.get("messages")):
            return add_system_prompt(messages, request)
        if messages := _input(request):
            return messages
    return None


def _input(request: Row) -> Chat:
    """Return the input of a request of OpenAI's Responses API as messages, its instructions as the system prompt."""
    content = parse_json_text(request.get("input"))
    turns = [{"role": "user", "content": content}] if as_text(content) else as_dicts(content)
    return add_system_prompt(turns, {"system": request.get("instructions")})


def _failure(document: Row) -> Row | None:
    """Return the `error` of a record for a failed request, from wherever the log describes it; None if it succeeded."""
    information = as_dict(document.get("error_information"))
    response_error = as_dict(document["response"]).get("error")
    details = as_dict(response_error)
    details = as_dict(details.get("error")) or details  # some servers nest the error in an `error`
    message = (
        first_text(information, ("error_message",))
        or first_text(document, ("error_str", "exception"))
        or first_text(details, ("message",))
        or as_text(response_error)
    )
    failed = document.get("status") == "failure" or message is not None or bool(details)
    if not failed:
        return None
    kind = first_text(information, ("error_class", "error_code")) or first_text(details, ("type", "code"))
    return make_failure(kind or "failure", message)
