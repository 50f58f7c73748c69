"""Rollouts of NeMo-Gym: a request of OpenAI's Responses, its answer, and a reward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    as_dict,
    as_dicts,
    as_text,
    as_whole_number,
    first_text,
    make_failure,
    make_usage,
    make_verdict,
    openai_tools,
    parse_json_text,
)
from rollmill.files.rows import Row

ENTRY = ProducerEntry("nemo-gym", "NemoGym", "rollouts (JSON Lines)")

_TASK, _ROLLOUT = "_ng_task_index", "_ng_rollout_index"
_NAMES = ("instance_id", "task_id", "problem_id", "id", "uuid")


class NemoGym:
    """Reads `{"responses_create_params", "response", "reward", ...}`."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a row has the parameters of a request, and its response."""
        return isinstance(document, dict) and {"responses_create_params", "response"} <= document.keys()

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout: the input is its prompt, the output its completion."""
        request, response = as_dict(document["responses_create_params"]), as_dict(document["response"])
        error, tokens = as_dict(response.get("error")), as_dict(response.get("usage"))
        message = first_text(error, ("message",)) or as_text(response.get("error")) or as_text(document.get("error"))
        has_failed = message is not None or bool(error) or response.get("status") == "failed"
        model = as_text(response.get("model"))
        yield {
            "instance_id": first_text(document, _NAMES) or _task(document, origin),
            "sample_id": as_whole_number(document.get(_ROLLOUT)),
            "prompt": _prompt(request),
            "completion": as_dicts(response.get("output")),
            "tools": openai_tools(request.get("tools") or response.get("tools")),
            "incomplete_details": response.get("incomplete_details"),
            "status": "incomplete" if response.get("status") == "incomplete" else None,
            "usage": make_usage(tokens.get("input_tokens"), tokens.get("output_tokens")),
            "error": make_failure(error.get("code"), message) if has_failed else None,
            "metadata": {"model": model} if model else None,
            **make_verdict(document.get("reward")),
        }


def _task(document: Row, origin: RowOrigin) -> str:
    index = as_whole_number(document.get(_TASK))
    if index is None:
        return origin.generated_id
    return f"{as_text(as_dict(document.get('agent_ref')).get('name')) or origin.file_stem}-{index}"


def _prompt(request: Row) -> list[Row]:
    content = parse_json_text(request.get("input"))
    turns = [{"role": "user", "content": content}] if isinstance(content, str) else as_dicts(content)
    instructions = as_text(request.get("instructions"))
    return [{"role": "system", "content": instructions}, *turns] if instructions else turns
