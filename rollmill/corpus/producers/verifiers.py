"""Results of the library verifiers: `results.jsonl`, and `traces.jsonl` from its version 1 on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    as_dict,
    as_dicts,
    as_number,
    as_text,
    exclude_from_training,
    first_text,
    make_failure,
    make_usage,
    make_verdict,
    openai_tools,
    parse_json_text,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("verifiers", "Verifiers", "results.jsonl, and traces.jsonl of its version 1")

_RESULT_FIELDS = frozenset({"example_id", "is_completed", "stop_condition", "generation_ms", "rollout_idx", "metrics"})
_CUT_OFF = frozenset({"max_input_tokens", "max_output_tokens", "max_total_tokens", "context_length"})


class Verifiers:
    """Reads rows of `prompt`, `completion`, `reward`, and episodes of traces, which are graphs of messages."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a row is a result, an episode with traces, or one trace."""
        if not isinstance(document, dict) or "instance_id" in document:
            return False
        if isinstance(document.get("traces"), list):
            return "env" in document or any(map(_is_trace, as_dicts(document["traces"])[:1]))
        is_result = {"prompt", "completion", "reward"} <= document.keys() and not _RESULT_FIELDS.isdisjoint(document)
        return is_result or _is_trace(document)

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield one rollout for each result, and for each trace of an episode the messages of its last branch."""
        if "traces" in document:
            for trace in as_dicts(document["traces"]):
                yield _of_trace(trace, document, origin)
        elif "nodes" in document:
            yield _of_trace(document, {}, origin)
        else:
            yield _of_result(document, origin)


def _is_trace(document: Row) -> bool:
    return isinstance(document.get("nodes"), list) and isinstance(document.get("task"), dict) and "agent" in document


def _of_result(document: Row, origin: RowOrigin) -> Row:
    tokens = as_dict(document.get("token_usage"))
    return {
        "instance_id": first_text(document, ("example_id", "id")) or origin.generated_id,
        "sample_id": document.get("rollout_idx"),
        "prompt": _turns(document.get("prompt")),
        "completion": _turns(document.get("completion")),
        "tools": openai_tools(document.get("tool_defs") or document.get("oai_tools")),
        "is_truncated": document.get("is_truncated"),
        "exit_status": as_text(document.get("stop_condition")),
        "usage": make_usage(_token_count(tokens.get("input_tokens")), _token_count(tokens.get("output_tokens"))),
        "error": _error(document.get("error")),
        **make_verdict(document.get("reward")),
    }


def _turns(value: Any) -> Any:
    """Return messages with their calls, each recorded as JSON text, parsed; text unchanged."""
    messages = parse_json_text(value)
    if not isinstance(messages, list):
        return value
    return [
        {**message, "tool_calls": as_dicts(message["tool_calls"])} if message.get("tool_calls") else message
        for message in as_dicts(messages)
    ]


def _token_count(value: Any) -> int | None:
    amount = as_number(value)
    return int(amount) if amount is not None and 0 <= amount < 2**63 else None


def _error(error: Any) -> Row | None:
    if not error:
        return None
    known = as_dict(error)
    message = first_text(known, ("message", "error_chain_str", "error_chain_repr", "error")) or as_text(error)
    return make_failure(first_text(known, ("error", "type", "error_type")) or _leading_word(message), message)


def _leading_word(message: str | None) -> str:
    return (message or "").partition("(")[0].partition(":")[0].strip()[:60]


def _of_trace(trace: Row, episode: Row, origin: RowOrigin) -> Row:
    task, agent = as_dict(trace.get("task")), as_dict(trace.get("agent"))
    data = as_dict(task.get("data"))
    errors = as_dicts(trace.get("errors")) or as_dicts(episode.get("errors"))
    failed = errors[-1] if errors and trace.get("ok") is not True else None
    named = first_text(data, ("name", "idx")) or first_text(task, ("key", "hash")) or origin.generated_id
    calls = as_dicts(trace.get("calls"))
    usages = [as_dict(call.get("usage")) for call in calls]
    env = as_text(as_dict(episode.get("env")).get("id"))
    return {
        "instance_id": f"{env}/{named}" if env else named,
        "messages": _last_branch(as_dicts(trace.get("nodes"))),
        "tools": openai_tools(trace.get("tools")),
        "truncated": _is_cut_off(trace, calls) or None,
        "trainable": agent.get("trainable"),
        "exit_status": as_text(trace.get("stop_condition")),
        "model_calls": len(calls) or None,
        "usage": make_usage(_sum(usages, "prompt_tokens"), _sum(usages, "completion_tokens")),
        "error": make_failure(failed.get("type"), failed.get("message")) if failed else None,
        **make_verdict(_reward(as_dict(trace.get("rewards")))),
    }


def _sum(uses: list[Row], name: str) -> int | None:
    known = [amount for each in uses if (amount := _token_count(each.get(name))) is not None]
    return sum(known) if known else None


def _reward(rewards: Row) -> float | None:
    """Return the weighted sum of all rewards; None where any is missing, or there is none."""
    values = [_value(as_dict(each)) for each in rewards.values()]
    return sum(value for value in values if value is not None) if values and None not in values else None


def _value(reward: Row) -> float | None:
    score, weight = as_number(reward.get("score")), as_number(reward.get("weight", 1.0))
    return None if score is None or weight is None else score * weight


def _is_cut_off(trace: Row, calls: list[Row]) -> bool:
    if as_text(trace.get("stop_condition")) in _CUT_OFF:
        return True
    answered = [call for call in calls if not call.get("error")]
    return bool(answered) and answered[-1].get("finish_reason") == "length"


def _last_branch(nodes: list[Row]) -> Chat:
    """Return the messages from the root to the last node; those that the model did not sample are not trained on."""
    messages: Chat = []
    index: Any = len(nodes) - 1
    # A parent has to come before its child in the list: a damaged file cannot make this loop run forever.
    while type(index) is int and 0 <= index < len(nodes):
        node = nodes[index]
        message = as_dict(node.get("message"))
        if message:
            messages.append(message if node.get("sampled") is not False else exclude_from_training(message))
        parent = node.get("parent")
        index = parent if type(parent) is int and parent < index else None
    return messages[::-1]
