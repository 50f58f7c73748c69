"""Reading what others wrote: values of any kind in any place, none of which is taken for granted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
import xxhash

from rollmill.corpus.message_roles import langchain_role
from rollmill.files.rows import Row

Chat = list[Row]
FULL = 1.0
"""The reward from which on a rollout succeeded, where its producer says no more than the reward."""
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
"""ShareGPT's names for speakers, which are also those of the programs that it came from."""
_SAID = ("value", "content", "text")
_CALLING = frozenset({"function_call", "tool_call"})
_REWARDS = ("reward", "score")
_LONGEST_NUMBER = 40
_WORDS = {"true": True, "false": False}
_VERDICTS = ("resolved", "success", "is_resolved")


def opened(value: Any) -> Any:
    """Return what JSON text holds, where that is a list or an object; any other value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def fields(value: Any) -> Row:
    """Return an object, opened where it is JSON text; an empty one for any other value."""
    value = opened(value)
    return value if isinstance(value, dict) else {}


def objects(value: Any) -> list[Row]:
    """Return the objects of a list, each and the list opened where they are JSON text; others are left out."""
    value = opened(value)
    items = map(opened, value) if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, dict)]


def text(value: Any) -> str | None:
    """Return text that is not empty, and numbers as text; None for any other value."""
    if isinstance(value, str):
        return value or None
    return str(value) if type(value) in (int, float) else None


def first_text(document: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the first field that holds text or a number."""
    return next((found for name in names if (found := text(document.get(name))) is not None), None)


def number(value: Any) -> float | None:
    """Return a finite number, true as 1, also of text; None for any other value."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER:
        try:
            value = float(value)
        except ValueError:
            return None
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def boolean(value: Any) -> bool | None:
    """Return true or false, also of 1 and 0, as tables have them, and of text; None for any other value."""
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    return bool(value) if isinstance(value, (bool, int, float)) and value in (0, 1) else None


def whole(value: Any) -> int | None:
    """Return a whole number from 0 on; None for any other value."""
    return value if type(value) is int and value >= 0 else None


def usage(prompt_tokens: Any, completion_tokens: Any) -> Row | None:
    """Return the tokens of a rollout as records have them; None where neither is known."""
    known = {"prompt_tokens": whole(prompt_tokens), "completion_tokens": whole(completion_tokens)}
    return known if any(value is not None for value in known.values()) else None


def judged(reward: Any, success: Any = None) -> Row:
    """Return a verdict: what is no number is no reward, what is neither true nor false no success; one tells the other.

    A rollout with a reward alone succeeded from `FULL` on.
    """
    points = number(reward)
    succeeded = boolean(success)
    if points is None and succeeded is not None:
        points = float(succeeded)
    if succeeded is None and points is not None:
        succeeded = points >= FULL
    return {"reward": points, "success": succeeded}


def verdict(*places: Any) -> Row:
    """Return what the first of some objects says that says anything: a reward, a score, whether it is resolved."""
    found = [fields(place) for place in places]
    reward = next((each[name] for each in found for name in _REWARDS if number(each.get(name)) is not None), None)
    success = next((each[name] for each in found for name in _VERDICTS if boolean(each.get(name)) is not None), None)
    return judged(reward, success)


def failure(kind: Any, message: Any) -> Row:
    """Return the error of a rollout that broke, so that it has no verdict."""
    return {"type": text(kind) or "error", "message": (text(message) or "")[:2000]}


def openai_tools(value: Any) -> list[Row] | None:
    """Return tools in OpenAI's form, of that of Responses, Anthropic, Gemini and verifiers; None for no tools."""
    given = [each for tool in objects(value) for each in _declared(tool) or [tool]]
    tools = [tool if isinstance(tool.get("function"), dict) else _tool(tool) for tool in given]
    return [tool for tool in tools if tool] or None


def _declared(tool: Row) -> list[Row]:
    """Return the functions of one of Gemini's tools."""
    return [each for name in ("functionDeclarations", "function_declarations") for each in objects(tool.get(name))]


def _tool(tool: Row) -> Row:
    if not isinstance(tool.get("name"), str):
        return {}
    schema = next((tool[name] for name in ("parameters", "input_schema") if isinstance(tool.get(name), dict)), None)
    function = {"name": tool["name"], "description": tool.get("description"), "parameters": schema}
    return {"type": "function", "function": {key: item for key, item in function.items() if item is not None}}


def chat(value: Any) -> Chat | None:
    """Return a conversation, also of ShareGPT or LangChain, as a list or JSON text; None for any other value."""
    messages = objects(value)
    if not messages:
        return None
    return [_with_role(message) for message in messages]


def is_share_gpt(turn: Row) -> bool:
    """Return whether a turn names its speaker with `from` (LangChain: `type`), or its words with `value` or `text`."""
    if "role" not in turn:
        return ("from" in turn and any(name in turn for name in _SAID)) or bool(_lang_chain_role(turn, turn))
    return "content" not in turn and ("value" in turn or "text" in turn)


def _with_role(message: Row) -> Row:
    """Return a turn of ShareGPT, or a message of LangChain, with a role; any other one as it is."""
    inner = next((each for name in ("kwargs", "data") if isinstance(each := message.get(name), dict)), message)
    if "role" not in message and "from" not in message and (role := _lang_chain_role(message, inner)):
        return {**inner, "role": role}
    return _of_share_gpt(message) if is_share_gpt(message) else message


def _lang_chain_role(message: Row, inner: Row) -> str:
    role = inner.get("role") if inner is not message else None
    return role or langchain_role(message.get("id"), inner.get("type"), message.get("type"))


def _of_share_gpt(turn: Row) -> Row:
    key = next(key for key in ("role", "from", "type") if key in turn)
    speaker = str(turn[key]).lower()
    name = next(name for name in _SAID if name in turn)
    more = {key: item for key, item in turn.items() if key not in ("from", "role", "type", name)}
    said = turn[name] if turn[name] is not None else turn.get("system_prompt")
    message = {"role": _ROLES.get(speaker, speaker), "content": said, **more}
    call = opened(turn[name]) if speaker in _CALLING else None
    if isinstance(call, dict | list):
        message |= {"content": "", "tool_calls": call if isinstance(call, list) else [call]}
    return message


def with_system(messages: Sequence[Row], document: Row) -> list[Row]:
    """Return a conversation behind the system prompt that stands beside it, unless it begins with one itself.

    It stands there under `system` (Anthropic's parts are text, too) or `system_prompt`.
    """
    said = next((value for name in ("system", "system_prompt") if (value := document.get(name))), None)
    is_said = isinstance(said, str) or bool(objects(said))
    if not is_said or any(message.get("role") in ("system", "developer") for message in messages):
        return list(messages)
    return [{"role": "system", "content": said}, *messages]


def not_learnt(message: Row) -> Row:
    """Return a message that is not to be learnt, where it is the model's."""
    return {**message, "weight": 0} if message.get("role") == "assistant" else message


def before_answer(messages: Sequence[Row]) -> list[Row]:
    """Return what stands before the first turn of the model."""
    first = next((at for at, message in enumerate(messages) if message.get("role") == "assistant"), len(messages))
    return list(messages[:first])


def prompt_id(prompt: Any) -> str:
    """Return the id of a problem that has none: equal prompts are the same problem."""
    if isinstance(prompt, list):
        prompt = [[message.get("role"), message.get("content")] for message in prompt if isinstance(message, dict)]
    return f"prompt-{xxhash.xxh3_64_hexdigest(orjson.dumps(prompt))}"
