"""Read values of other producers' rows, and make values of records from them.

`as_...` functions accept any JSON value, and return None, or an empty dict or list, where it does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import xxhash

from rollmill.corpus.message_roles import find_langchain_role
from rollmill.files.rows import Row

Chat = list[Row]
FULL_REWARD = 1.0
"""The reward from which on a rollout counts as successful, where its producer records only the reward."""
_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "tool_response": "tool",
    "function_call": "assistant",
    "tool_call": "assistant",
}
"""Roles by ShareGPT's names of speakers, which are also those of the chat programs that it was collected from."""
_TEXT_KEYS = ("value", "content", "text")
_CALL_SPEAKERS = frozenset({"function_call", "tool_call"})
_REWARDS = ("reward", "score")
_LONGEST_NUMBER_TEXT = 40
_BOOLEAN_TEXTS = {"true": True, "false": False}
_SUCCESSES = ("resolved", "success", "is_resolved")


def parse_json_text(value: Any) -> Any:
    """Return the list or object that JSON text contains; any other value unchanged."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def as_dict(value: Any) -> Row:
    """Return a JSON object, or the one that JSON text contains, as a dict; an empty dict for any other value."""
    value = parse_json_text(value)
    return value if isinstance(value, dict) else {}


def as_dicts(value: Any) -> list[Row]:
    """Return the JSON objects of a list as dicts; the list and each item may be JSON text. Other items are left out."""
    value = parse_json_text(value)
    items = map(parse_json_text, value) if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict)]


def as_text(value: Any) -> str | None:
    """Return a string that is not empty, or a number as a string; None for any other value."""
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) in (int, float) else None


def first_text(document: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return `as_text` of the first of these fields that has a text or number; None if none has."""
    return next((value for name in names if (value := as_text(document.get(name))) is not None), None)


def as_number(value: Any) -> float | None:
    """Return a finite number, true as 1, also from text; None for any other value."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER_TEXT:
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def as_boolean(value: Any) -> bool | None:
    """Return true or false, also from 1 and 0 (as tables have them) and from text; None for any other value."""
    if isinstance(value, str):
        return _BOOLEAN_TEXTS.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def as_whole_number(value: Any) -> int | None:
    """Return a whole number from 0 on; None for any other value."""
    return value if type(value) is int and value >= 0 else None


def make_usage(prompt_tokens: Any, completion_tokens: Any) -> Row | None:
    """Return a rollout's token counts as records have them; None where neither is known."""
    known = {"prompt_tokens": as_whole_number(prompt_tokens), "completion_tokens": as_whole_number(completion_tokens)}
    return known if any(value is not None for value in known.values()) else None


def make_verdict(reward: Any, success: Any = None) -> Row:
    """Return the fields `reward` and `success` of a record, each null where its value does not fit.

    One is derived from the other where only one is known: success alone is a reward of 1 or 0, a reward alone a success
    from `FULL_REWARD` on.
    """
    points = as_number(reward)
    succeeded = as_boolean(success)
    if points is None and succeeded is not None:
        points = float(succeeded)
    if succeeded is None and points is not None:
        succeeded = points >= FULL_REWARD
    return {"reward": points, "success": succeeded}


def find_verdict(*candidates: Any) -> Row:
    """Return `reward` and `success`, each from the first object that has such a value under any of its names."""
    rows = [as_dict(candidate) for candidate in candidates]
    reward = next((each[name] for each in rows for name in _REWARDS if as_number(each.get(name)) is not None), None)
    success = next((each[name] for each in rows for name in _SUCCESSES if as_boolean(each.get(name)) is not None), None)
    return make_verdict(reward, success)


def make_failure(kind: Any, message: Any) -> Row:
    """Return the `error` of a rollout that failed outside of the model, and so has no verdict."""
    return {"type": as_text(kind) or "error", "message": (as_text(message) or "")[:2000]}


def openai_tools(value: Any) -> list[Row] | None:
    """Return tools in OpenAI's form, also those of Responses, Anthropic, Gemini and verifiers; None for no tools."""
    declared = [each for tool in as_dicts(value) for each in _gemini_functions(tool) or [tool]]
    tools = [tool if isinstance(tool.get("function"), dict) else _tool(tool) for tool in declared]
    return [tool for tool in tools if tool] or None


def _gemini_functions(tool: Row) -> list[Row]:
    """Return the function declarations inside of one of Gemini's tools."""
    return [each for name in ("functionDeclarations", "function_declarations") for each in as_dicts(tool.get(name))]


def _tool(tool: Row) -> Row:
    if not isinstance(tool.get("name"), str):
        return {}
    schema = next((tool[name] for name in ("parameters", "input_schema") if isinstance(tool.get(name), dict)), None)
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": schema}
    return {"type": "function", "function": {key: item for key, item in function.items() if item is not None}}


def as_chat(value: Any) -> Chat | None:
    """Return a conversation, also ShareGPT's or LangChain's, from a list or JSON text; None for any other value."""
    messages = as_dicts(value)
    if not messages:
        return None
    return [_with_role(message) for message in messages]


def is_share_gpt(turn: Row) -> bool:
    """Return whether a turn has its speaker under `from` (LangChain: `type`), or its text under `value` or `text`."""
    if "role" not in turn:
        return ("from" in turn and any(name in turn for name in _TEXT_KEYS)) or bool(_lang_chain_role(turn, turn))
    return "content" not in turn and ("value" in turn or "text" in turn)


def _with_role(message: Row) -> Row:
    """Return a turn of ShareGPT, or a message of LangChain, with a role; any other message unchanged."""
    inner = next((each for name in ("kwargs", "data") if isinstance(each := message.get(name), dict)), message)
    if "role" not in message and "from" not in message and (role := _lang_chain_role(message, inner)):
        return {**inner, "role": role}
    return _of_share_gpt(message) if is_share_gpt(message) else message


def _lang_chain_role(message: Row, inner: Row) -> str:
    role = inner.get("role") if inner is not message else None
    return role or find_langchain_role(message.get("id"), inner.get("type"), message.get("type"))


def _of_share_gpt(turn: Row) -> Row:
    """Return a turn of ShareGPT as a message."""
    key = next(key for key in ("role", "from", "type") if key in turn)
    speaker = str(turn[key]).lower()
    name = next(name for name in _TEXT_KEYS if name in turn)
    more = {key: item for key, item in turn.items() if key not in ("from", "role", "type", name)}
    content = turn[name] if turn[name] is not None else turn.get("system_prompt")
    message = {"role": _ROLES.get(speaker, speaker), "content": content, **more}
    call = parse_json_text(turn[name]) if speaker in _CALL_SPEAKERS else None
    if isinstance(call, dict | list):
        message |= {"content": "", "tool_calls": call if isinstance(call, list) else [call]}
    return message


def add_system_prompt(messages: Sequence[Row], document: Row) -> list[Row]:
    """Return a conversation after the system prompt that its row has beside it, unless it begins with its own.

    The system prompt is under `system` (text, or Anthropic's parts) or `system_prompt`.
    """
    prompt = next((value for name in ("system", "system_prompt") if (value := document.get(name))), None)
    has_prompt = isinstance(prompt, str) or bool(as_dicts(prompt))
    if not has_prompt or any(message.get("role") in ("system", "developer") for message in messages):
        return list(messages)
    return [{"role": "system", "content": prompt}, *messages]


def exclude_from_training(message: Row) -> Row:
    """Return a message with weight 0, so that it is not trained on; unchanged where it is not the model's."""
    return {**message, "weight": 0} if message.get("role") == "assistant" else message


def messages_before_answer(messages: Sequence[Row]) -> list[Row]:
    """Return the messages before the first turn of the model."""
    first = next((index for index, message in enumerate(messages) if message.get("role") == "assistant"), len(messages))
    return list(messages[:first])


def prompt_id(prompt: Any) -> str:
    """Return an id for a problem that has none: equal prompts get the same one."""
    if isinstance(prompt, list):
        prompt = [[message.get("role"), message.get("content")] for message in prompt if isinstance(message, dict)]
    return f"prompt-{xxhash.xxh3_64_hexdigest(orjson.dumps(prompt))}"
