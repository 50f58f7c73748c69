"""The Agent Trajectory Interchange Format (ATIF), which Harbor, NeMo and OpenEnv write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from rollmill.corpus.producer import ProducerEntry, RowOrigin
from rollmill.corpus.producer_values import (
    Chat,
    as_dict,
    as_dicts,
    as_number,
    as_text,
    as_whole_number,
    exclude_from_training,
    find_verdict,
    first_text,
    make_failure,
    make_usage,
    make_verdict,
    openai_tools,
)
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.files.remote import is_remote
from rollmill.files.rows import Row

ENTRY = ProducerEntry("atif", "Atif", "the Agent Trajectory Interchange Format")

_ROLES = {"system": "system", "user": "user", "agent": "assistant"}
_NAMES = ("instance_id", "task_id", "task_name")
_SESSIONS = ("trajectory_id", "session_id")
_AGENT = "agent"
"""The folder of a trial of Harbor that contains its trajectory."""
_LONGEST_RESULT = 16 << 20


class Atif:
    """Reads `{"schema_version": "ATIF-v1.x", "agent", "steps", ...}`."""

    def recognizes(self, document: Any) -> bool:
        """Return whether a document names the format, or has an agent and steps with sources."""
        if not isinstance(document, dict) or not isinstance(document.get("steps"), list):
            return False
        if str(document.get("schema_version")).startswith("ATIF"):
            return True
        return isinstance(document.get("agent"), dict) and all("source" in step for step in as_dicts(document["steps"]))

    def rollouts(self, document: Row, origin: RowOrigin) -> Iterator[Row]:
        """Yield the one rollout.

        The format has no field for a verdict, which may be in `extra` and the metrics of steps; Harbor writes it to a
        file of the trial's folder.
        """
        extra, metrics, agent = (as_dict(document.get(name)) for name in ("extra", "final_metrics", "agent"))
        steps = as_dicts(document["steps"])
        trial = _Trial.of(origin.path)
        own_verdict = find_verdict(document, extra, metrics, metrics.get("extra"), {"reward": _sum_of_rewards(steps)})
        final_verdict = own_verdict if own_verdict["reward"] is not None else make_verdict(trial.reward)
        error = extra.get("error") or extra.get("exception_info")
        # Harbor runs the tests even after an agent's timeout: with their reward, the exception is no failure.
        error = error or (trial.exception if final_verdict["reward"] is None else None)
        named = first_text(extra, _NAMES) or first_text(document, _NAMES) or trial.task
        named = named or first_text(document, _SESSIONS)
        model = as_text(agent.get("model_name"))
        yield {
            "instance_id": named or origin.generated_id,
            "sample_id": extra.get("sample_id"),
            "messages": [message for step in steps for message in _messages(step)],
            "tools": openai_tools(agent.get("tool_definitions")),
            "chat_template_kwargs": extra.get("chat_template_kwargs"),
            "exit_status": as_text(extra.get("exit_status"))
            or first_text(as_dict(trial.exception), ("exception_type",)),
            "finish_reason": as_text(extra.get("finish_reason")),
            "truncated": extra.get("truncated"),
            "model_calls": sum(step.get("source") == "agent" for step in steps),
            "usage": make_usage(metrics.get("total_prompt_tokens"), metrics.get("total_completion_tokens")),
            "error": _error(error) if error else None,
            "metadata": {"model": model} if model else None,
            **final_verdict,
        }


class _Trial(NamedTuple):
    """The files that Harbor writes into a trial's folder: task, reward, exception."""

    task: str | None = None
    reward: float | None = None
    exception: Any = None

    @classmethod
    def of(cls, path: str) -> _Trial:
        """Return the facts of the trial that a trajectory file belongs to; none for a file outside of a trial."""
        folder = Path(path).parent
        if folder.name != _AGENT or is_remote(path):
            return cls()
        trial = folder.resolve().parent
        result = as_dict(_read_json(trial, "result.json"))
        rewards = (
            as_dict(result.get("verifier_result")).get("rewards"),
            result.get("verifier_result"),
            _read_json(trial, "verifier/reward.json"),
            {"reward": _read_json(trial, "verifier/reward.txt")},
        )
        known = (_reward(as_dict(each)) for each in rewards)
        reward = next((each for each in known if each is not None), None)
        return cls(as_text(result.get("task_name")), reward, result.get("exception_info"))


def _read_json(trial: Path, name: str) -> Any:
    """Return the decoded content of a trial's file; None where it does not exist or is no JSON."""
    try:
        content = read_confined(name, [trial], limit=_LONGEST_RESULT)
        return orjson.loads(content)
    except (ConfinedFileError, orjson.JSONDecodeError):
        return None


def _reward(rewards: Row) -> float | None:
    """Return a trial's reward: the one named `reward`, or the only one."""
    if (reward := as_number(rewards.get("reward"))) is not None:
        return reward
    return as_number(next(iter(rewards.values()))) if len(rewards) == 1 else None


def _sum_of_rewards(steps: list[Row]) -> float | None:
    """Return the sum of the rewards in the steps' metrics; None where there are none."""
    metrics = [as_dict(step.get("metrics")) for step in steps]
    known = (as_number({**as_dict(each.get("extra")), **each}.get("reward")) for each in metrics)
    rewards = [reward for reward in known if reward is not None]
    return sum(rewards) if rewards else None


def _error(error: Any) -> Row:
    details = as_dict(error)
    kind = first_text(details, ("type", "exception_type"))
    return make_failure(kind, first_text(details, ("message", "exception_message")) or as_text(error))


def _messages(step: Row) -> Chat:
    """Return a step's message, followed by the results that it observed."""
    role = _ROLES.get(str(step.get("source")), str(step.get("source")))
    calls = [_call(call) for call in as_dicts(step.get("tool_calls"))]
    results = [_result(result) for result in as_dicts(as_dict(step.get("observation")).get("results"))]
    message: Row = {"role": role, "content": _content(step.get("message"))}
    if role == "assistant":
        message |= {"tool_calls": calls} if calls else {}
        message |= {"reasoning_content": step["reasoning_content"]} if as_text(step.get("reasoning_content")) else {}
        extra = as_dict(step.get("extra"))
        message |= {"finish_reason": extra["finish_reason"]} if as_text(extra.get("finish_reason")) else {}
        message |= {"weight": 0} if extra.get("weight") == 0 else {}
        # A step copied from another context, or that no model call wrote, is not trained on.
        if step.get("is_copied_context") is True or as_whole_number(step.get("llm_call_count")) == 0:
            message = exclude_from_training(message)
    is_turn = message["content"] or calls or role == "assistant"
    return [*([message] if is_turn else []), *(result for result in results if result["content"] is not None)]


def _call(call: Row) -> Row:
    function = {"name": call.get("function_name"), "arguments": call.get("arguments")}
    return {"id": call.get("tool_call_id"), "type": "function", "function": function}


def _result(result: Row) -> Row:
    content, identity = _content(result.get("content")), as_text(result.get("source_call_id"))
    if identity is None:  # the result of an action that is no call: the model saw it as a user's message
        return {"role": "user", "content": content}
    return {"role": "tool", "content": content, "tool_call_id": identity}


def _content(value: Any) -> Any:
    """Return text, or parts, whose images are paths."""
    return [_part(part) for part in as_dicts(value)] if isinstance(value, list) else value


def _part(part: Row) -> Row:
    source = as_dict(part.get("source"))
    return {"type": "image", "image": source["path"]} if as_text(source.get("path")) else part
