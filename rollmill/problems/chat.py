"""Chat: a problem and its prompting become the messages of a request."""

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
    """Return the conversation to answer: system turn, few-shot turns, the problem's own.

    Content is text, or a list of `{"type": "text", "text"}` and `{"type": "image", "image": path, "media_type"}` in
    messages that show the images. As many `<image>` in the first user turn, or else in all turns that the model did not
    write, as there are images: each stands for one; any other number: the images come first, in the first user turn.
    The template applies to the last user turn, and a system prompt replaces the chat prompt's own. Lettered choices
    follow the question of the last one.
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
    """Return the messages as the OpenAI API takes them: image parts carry the file's bytes as a data URL.

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
    first = next(index for index, turn in enumerate(turns) if turn["role"] == "user")
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
