"""Build the chat messages of a request from a problem and its prompting."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.problems.cells import IMAGE_MARKER
from rollmill.problems.choices import read_choices
from rollmill.problems.images import LARGEST_IMAGE
from rollmill.problems.prompting import Prompting
from rollmill.records import Image, Message, Problem
from rollmill.terminal.escapes import visible


def build_messages(problem: Problem, prompting: Prompting) -> list[Message]:
    """Build the conversation to complete: system turn, few-shot turns, the problem's turns.

    The template applies to the last user turn, whose question is followed by the lettered choices, if they are shown.
    A system prompt replaces that of a chat prompt.

    Content is text, or in messages with images a list of `{"type": "text", "text"}` and
    `{"type": "image", "image": path, "media_type"}`. If there are as many `<image>` markers as images, in the first
    user turn or else in all turns but the assistant's, each image takes the position of its marker; otherwise all
    images come first in the first user turn.

    Raises `InputError` where the template names a column that the problem does not have.
    """
    turns = _render_turns(problem, prompting)
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    turns = turns[len(system) :]
    if problem.images:
        turns = _show_images(turns, problem.images)
    if prompting.system_prompt is not None:
        system = [{"role": "system", "content": prompting.system_prompt}]
    return [*system, *_few_shot_turns(prompting), *turns]


def to_openai(messages: list[Message], folder: Path) -> list[Message]:
    """Convert messages to those of the OpenAI API: image parts carry the file's bytes as a data URL.

    Image paths are relative to `folder`. Raises `InputError` where an image file cannot be read, or lies outside of
    `folder`.
    """
    return [
        {**message, "content": [_to_openai_part(part, folder) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _render_turns(problem: Problem, prompting: Prompting) -> list[Message]:
    """Return the problem's turns with the template and the choices applied to the last user turn."""
    if isinstance(problem.prompt, str):
        turns: list[Message] = [{"role": "user", "content": problem.prompt}]
    else:
        turns = list(problem.prompt)
    choices = read_choices(problem.fields) if prompting.shows_choices else None
    if prompting.template is None and choices is None:
        return turns
    last = max((index for index, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None:
        what = "its choices" if prompting.template is None else "the prompt template"
        raise InputError(f"problem {problem.instance_id} has no user turn for {what}")
    question = turns[last]["content"]
    if choices is not None:
        question = choices.shown_after(question)
    rendered = prompting.render(question, problem.fields, f"problem {problem.instance_id}")
    turns[last] = {**turns[last], "content": rendered}
    return turns


def _few_shot_turns(prompting: Prompting) -> list[Message]:
    turns: list[Message] = []
    for number, (question, answer) in enumerate(prompting.few_shot, start=1):
        rendered = prompting.render(question, {}, f"few-shot example {number}")
        turns += [{"role": "user", "content": rendered}, {"role": "assistant", "content": answer}]
    return turns


def _show_images(turns: list[Message], images: tuple[Image, ...]) -> list[Message]:
    """Return the turns with the images inserted: see `build_messages` for their positions."""
    first = next(index for index, turn in enumerate(turns) if turn["role"] == "user")
    # A marker in an assistant turn is text that a model wrote.
    marked = [index for index, turn in enumerate(turns) if turn["role"] != "assistant" and _markers(turn)]
    remaining = list(images)
    shown = list(turns)
    if _markers(turns[first]) == len(images) or sum(_markers(turns[index]) for index in marked) != len(images):
        marked = [first]
    for index in marked:
        count = len(images) if marked == [first] else _markers(turns[index])
        taken, remaining = remaining[:count], remaining[count:]
        shown[index] = {**turns[index], "content": _interleave(turns[index]["content"], taken)}
    return shown


def _markers(turn: Message) -> int:
    return str(turn["content"]).count(IMAGE_MARKER)


def _interleave(text: str, images: Sequence[Image]) -> list[dict[str, Any]]:
    """Return content parts with the images at their markers, or first where the numbers differ."""
    shown = [{"type": "image", "image": image.path, "media_type": image.media_type} for image in images]
    texts = text.split(IMAGE_MARKER)
    if len(texts) - 1 != len(images):
        return [*shown, {"type": "text", "text": text}]
    parts: list[dict[str, Any]] = []
    for index, piece in enumerate(texts):
        parts += [{"type": "text", "text": piece}] if piece.strip() else []
        parts += shown[index : index + 1]
    return parts


def _to_openai_part(part: Any, folder: Path) -> Any:
    if not isinstance(part, dict) or part.get("type") != "image":
        return part
    try:
        content = read_confined(str(part["image"]), [folder], limit=LARGEST_IMAGE)
    except ConfinedFileError as error:
        raise InputError(f"cannot read the image {visible(error.detail)} ({error.reason})") from None
    url = f"data:{part['media_type']};base64,{base64.b64encode(content).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}
