"""Where in a conversation's text the assistant speaks, whatever the chat template."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rollmill.jobs.training.rows import ASSISTANT, Chat, TrainingRow

_MARKER = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_MARK = "rollmillturn"

Span = tuple[int, int]
"""Begin and end, in characters."""


class Written(NamedTuple):
    """A conversation as text, and the turns to learn in it: from the end of the generation prompt to the turn's end."""

    text: str
    turns: list[Span]


class RefusedError(Exception):
    """A conversation cannot be used with this template. `reason` is a word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ChatTemplate:
    """A tokenizer's chat template. `name` is what messages call it."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        self.name = name
        self._tokenizer = tokenizer
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        self._special = sorted({*tokenizer.all_special_tokens, *added})

    def write(self, row: TrainingRow) -> Written:
        """The row's text and its turns. Raises `RefusedError` where the template refuses, or hides where turns are.

        With generation markers in the template the turns are what it marks. Without, a turn begins where the prompt
        for it ends and ends where the conversation up to it does, if both are beginnings of the whole text; a template
        that writes a turn in another way once others follow (leaves out reasoning, say) is asked where it puts a mark
        in place of the turn's content. Either way a turn ends with its end-of-turn token, never after it.
        """
        rendering = _Rendering(self._tokenizer, row)
        text = rendering.text(row.messages)
        turns = self._marked(rendering, row, text) or [
            self._turn(rendering, row.messages, number, text)
            for number in range(row.first, len(row.messages))
            if row.messages[number]["role"] == ASSISTANT
        ]
        turns = [(begin, self._end(text, begin, end)) for begin, end in turns]
        ends = [0, *(end for _, end in turns)]
        if any(begin < before or end <= begin for before, (begin, end) in zip(ends, turns, strict=False)):
            raise RefusedError("turns_not_found", f"{self.name}: its chat template writes turns into each other")
        return Written(text, turns)

    def _marked(self, rendering: _Rendering, row: TrainingRow, text: str) -> list[Span] | None:
        """What the template's own markers enclose; None where they are not one pair for each assistant turn."""
        spans = rendering.marked(row.messages)
        speakers = [number for number, message in enumerate(row.messages) if message["role"] == ASSISTANT]
        if len(spans) != len(speakers):
            return None
        found = [(span, number) for span, number in zip(spans, speakers, strict=True) if number >= row.first]
        return [self._stopped(rendering, row.messages, number, text, span) for span, number in found]

    def _stopped(self, rendering: _Rendering, messages: Chat, number: int, text: str, span: Span) -> Span:
        """The span with the end-of-turn token, which some templates leave outside their markers."""
        begin, end = span
        ending = self._ending(rendering, messages, number, _MARK)
        return (begin, end + len(ending)) if text.startswith(ending, end) else span

    def _turn(self, rendering: _Rendering, messages: Chat, number: int, text: str) -> Span:
        before = rendering.prompt(messages[:number])
        after = rendering.attempt(messages[: number + 1])
        if before and after and text.startswith(after) and after.startswith(before):
            return len(before), len(after)
        return self._turn_by_mark(rendering, messages, number, text)

    def _turn_by_mark(self, rendering: _Rendering, messages: Chat, number: int, text: str) -> Span:
        mark = _MARK
        while mark in text:
            mark += "x"
        told = messages[number]
        head, found, tail = rendering.text(
            [*messages[:number], {**told, "content": mark}, *messages[number + 1 :]]
        ).partition(mark)
        begin, content_end = len(head), len(text) - len(tail)
        if not found or mark in tail or not text.startswith(head) or not text.endswith(tail) or content_end < begin:
            raise RefusedError("turns_not_found", f"{self.name}: its chat template hides where turn {number + 1} is")
        prompt = rendering.prompt(messages[:number])
        if prompt and head.startswith(prompt):
            begin = len(prompt)  # what the template writes between prompt and content, the model has to write
        ending = self._ending(rendering, messages, number, mark)
        end = text.find(ending, content_end) if told.get("tool_calls") else content_end
        if end < 0 or not text.startswith(ending, end):
            raise RefusedError("turns_not_found", f"{self.name}: its chat template hides where turn {number + 1} ends")
        return begin, end + len(ending)

    def _ending(self, rendering: _Rendering, messages: Chat, number: int, mark: str) -> str:
        """What the template writes behind the last turn, up to the end-of-turn token; nothing where there is none."""
        last = [{"role": ASSISTANT, "content": mark}]
        written = rendering.attempt(messages[:number] + last) or rendering.attempt(messages[:-1] + last) or ""
        tail = written.partition(mark)[2]
        return tail[: self._last_special(tail, 0, len(tail))]

    def _end(self, text: str, begin: int, end: int) -> int:
        """The end moved to just behind the end-of-turn token."""
        last = self._last_special(text, begin, end)
        if last > begin and not text[last:end].strip():
            return last
        eos = next((token for token in self._special if text.startswith(token, end)), None)
        return end + len(eos) if eos and eos == self._tokenizer.eos_token else end

    def _last_special(self, text: str, begin: int, end: int) -> int:
        """Where the last special token ends; `begin` where there is none."""
        places = [(text.rfind(token, begin, end), token) for token in self._special]
        return max((place + len(token) for place, token in places if place >= 0), default=begin)


class _Rendering:
    """One row's way of asking the template."""

    def __init__(self, tokenizer: Any, row: TrainingRow) -> None:
        self._tokenizer = tokenizer
        self._tools = row.tools
        self._options = row.options

    def text(self, messages: Chat) -> str:
        return self._ask(messages)

    def prompt(self, messages: Chat) -> str | None:
        """The text that the model continues; None where the template does not take so short a conversation."""
        return self.attempt(messages, add_generation_prompt=True)

    def attempt(self, messages: Chat, **more: Any) -> str | None:
        """The text, or None where the template refuses."""
        try:
            return self._ask(messages, **more)
        except RefusedError:
            return None

    def marked(self, messages: Chat) -> list[Span]:
        """What stands between generation markers; nothing without them."""
        from transformers.utils.chat_template_utils import render_jinja_template

        template = self._tokenizer.get_chat_template(tools=self._tools)
        if not _MARKER.search(template):
            return []
        rendered: Any = render_jinja_template(
            conversations=[messages],
            tools=self._tools,
            chat_template=template,
            return_assistant_tokens_mask=True,
            **{**self._tokenizer.special_tokens_map, **self._options},
        )
        return [(int(begin), int(end)) for begin, end in rendered[1][0]]

    def _ask(self, messages: Chat, **more: Any) -> str:
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages, tools=self._tools, tokenize=False, **{**self._options, **more}
                )
            )
        except Exception as error:  # a template is a program of its own: it may raise anything
            raise RefusedError("template_refused", f"the chat template refuses it: {error}") from error
