"""Chat: a problem and its prompting become the messages of a request."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from rollmill.errors import InputError
from rollmill.files.confined import ConfinedFileError, read_confined
from rollmill.problems.cells import IMAGE_MARKER
from rollmill.problems.images import LARGEST_IMAGE
from rollmill.problems.prompting import Prompting
from rollmill.records import Image, Message, Problem
from rollmill.terminal.escapes import visible


def build_messages(problem: Problem, prompting: Prompting) -> list[Message]:
    """The conversation to answer: system turn, few-shot turns, the problem's own.

    Content is text, or a list of `{"type": "text", "text"}` and `{"type": "image", "image": path, "media_type"}` in
    the message that shows the images. As many `<image>` in its text as there are images: each stands for one; any
    other number: the images come first. A chat prompt's images go into its first user turn, the template applies to
    its last, and a system prompt replaces its own.
    Raises `InputError` where the template names a column that the problem does not have.
    """
    turns = _own_turns(problem, prompting)
    system = [turn for turn in turns[:1] if turn["role"] == "system"]
    turns = turns[len(system) :]
    if problem.images:
        turns = _show_images(turns, problem.images)
    if prompting.system_prompt is not None:
        system = [{"role": "system", "content": prompting.system_prompt}]
    return [*system, *_few_shot_turns(prompting), *turns]


def to_openai(messages: list[Message], folder: Path) -> list[Message]:
    """The messages as the OpenAI API takes them: image parts carry the file's bytes as a data URL.

    `folder` is where the images' paths start, and all of them lie. Raises `InputError` where an image file cannot be
    read, or lies elsewhere.
    """
    return [
        {**message, "content": [_to_openai_part(part, folder) for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _own_turns(problem: Problem, prompting: Prompting) -> list[Message]:
    if isinstance(problem.prompt, str):
        turns: list[Message] = [{"role": "user", "content": problem.prompt}]
    else:
        turns = list(problem.prompt)
    if prompting.template is None:
        return turns
    last = max((place for place, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None:
        raise InputError(f"problem {problem.instance_id} has no user turn for the prompt template")
    rendered = prompting.render(turns[last]["content"], problem.fields, f"problem {problem.instance_id}")
    turns[last] = {**turns[last], "content": rendered}
    return turns


def _few_shot_turns(prompting: Prompting) -> list[Message]:
    turns: list[Message] = []
    for number, (question, answer) in enumerate(prompting.few_shot, start=1):
        asked = prompting.render(question, {}, f"few-shot example {number}")
        turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return turns


def _show_images(turns: list[Message], images: tuple[Image, ...]) -> list[Message]:
    first = next(place for place, turn in enumerate(turns) if turn["role"] == "user")
    parts = _interleave(turns[first]["content"], images)
    return [*turns[:first], {**turns[first], "content": parts}, *turns[first + 1 :]]


def _interleave(text: str, images: tuple[Image, ...]) -> list[dict[str, Any]]:
    shown = [{"type": "image", "image": image.path, "media_type": image.media_type} for image in images]
    texts = text.split(IMAGE_MARKER)
    if len(texts) - 1 != len(images):
        return [*shown, {"type": "text", "text": text}]
    parts: list[dict[str, Any]] = []
    for place, piece in enumerate(texts):
        parts += [{"type": "text", "text": piece}] if piece.strip() else []
        parts += shown[place : place + 1]
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
