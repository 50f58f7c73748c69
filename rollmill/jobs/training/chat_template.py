"""A tokenizer's chat template: rendered text, special tokens, and what the template's source reads."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cached_property
from typing import Any

from rollmill.jobs.training.rows import REASONING, Chat, TrainingRow

TEMPLATE_REFUSED = "template_refused"
TURNS_NOT_FOUND = "turns_not_found"
THOUGHTS_NOT_WRITTEN = "thoughts_not_written"
THOUGHTS_MISSING = "thoughts_missing"
THOUGHTS_NOT_CLOSED = "thoughts_not_closed"
CONTENT_NOT_WRITTEN = "content_not_written"
CALL_NOT_WRITTEN = "call_not_written"
CUT_OFF_IN_CALL = "cut_off_in_call"
END_NOT_WRITTEN = "end_not_written"
TURN_EMPTY = "turn_empty"
SPECIAL_TEXT = "special_token_in_text"

_REASONING_NAMES = (REASONING, "reasoning", "thinking")
"""Keys of a message under which chat templates look for thoughts."""
_THINKING_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates open or close thoughts in the generation prompt."""


class RefusedError(Exception):
    """A turn, or a conversation, that cannot be trained on with this template. `reason` is a word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ChatTemplate:
    """A tokenizer's chat template and special tokens.

    Args:
        tokenizer: A tokenizer of transformers.
        name: The model's name in messages.
        stops: Tokens, as text, at which the model's generation ends.
    """

    def __init__(self, tokenizer: Any, name: str, stops: Collection[str] = ()) -> None:
        self.name = name
        self._tokenizer = tokenizer
        tokens = tokenizer.added_tokens_decoder.values()
        # Some stop tokens (GLM's <|user|>, say) are added tokens that are not flagged as special.
        added = (str(token) for token in tokens if token.special or str(token) in stops)
        self._special = {token for token in (*tokenizer.all_special_tokens, *added) if token}
        self._stops = {*stops, *([tokenizer.eos_token] if tokenizer.eos_token else [])}
        # Longest first: an alternation takes the first that matches, and tokens may be prefixes of others.
        pattern = "|".join(re.escape(token) for token in sorted(self._special, key=lambda token: (-len(token), token)))
        self._special_pattern = re.compile(pattern or "(?!)")

    def is_end(self, token: str) -> bool:
        """Return whether a token ends turns: a stop token of the model, or any special token."""
        return token in self._stops or token in self._special

    def is_stop(self, token: str) -> bool:
        """Return whether the model's generation ends at a token."""
        return token in self._stops

    @cached_property
    def reasoning_names(self) -> tuple[str, ...]:
        """The message keys from which the template may read thoughts: attribute accesses first, then any mention."""
        source = self.source()
        attributes = [name for name in _REASONING_NAMES if re.search(rf"\.{name}\b|\[['\"]{name}['\"]\]", source)]
        words = [name for name in _REASONING_NAMES if re.search(rf"\b{name}\b", source)]
        return tuple(dict.fromkeys([*attributes, *words])) or (REASONING,)

    def source(self, tools: list[Any] | None = None) -> str:
        """Return the template's source; some tokenizers have another one for rows with tools."""
        return str(self._tokenizer.get_chat_template(tools=tools))

    def thinking_switches(self, row: TrainingRow) -> list[str]:
        """Return the variables that turn thinking on or off in the template, and that the row does not set."""
        source = self.source(row.tools)
        return [
            name
            for name in _THINKING_SWITCHES
            # As a variable of its own, not as an attribute (`message.thinking`) or a quoted key.
            if name not in row.options and re.search(rf"(?<![\w.'\"]){name}\b", source)
        ]

    def render(self, messages: Chat, row: TrainingRow, options: dict[str, Any], *, prompt: bool = False) -> str:
        """Return the rendered text. Raises `RefusedError` where the template raises.

        Args:
            messages: The conversation, in the form of messages that the template takes.
            row: The row, for its tools.
            options: Variables of the template (`chat_template_kwargs`).
            prompt: Whether to add the generation prompt.
        """
        try:
            # A batch of one: a single conversation may not be empty.
            texts = self._tokenizer.apply_chat_template(
                [messages], tools=row.tools, tokenize=False, **{**options, "add_generation_prompt": prompt}
            )
        except Exception as error:  # a template is a program of its own: it may raise anything
            raise RefusedError(TEMPLATE_REFUSED, f"the chat template refuses it: {error}") from error
        return str(texts[0])

    def specials(self, text: str) -> list[re.Match[str]]:
        """Return the matches of special tokens in a text, in order."""
        return list(self._special_pattern.finditer(text))

    def first_special(self, text: str) -> str | None:
        """Return the first special token in a text; None where it has none."""
        match = self._special_pattern.search(text)
        return match[0] if match else None

    def leading_specials(self, text: str) -> set[str]:
        """Return the special tokens that a text begins with, before its first word."""
        leading: set[str] = set()
        end = 0
        for token in self._special_pattern.finditer(text):
            if text[end : token.start()].strip():
                break
            leading.add(token[0])
            end = token.end()
        return leading

    def leading_stop(self, text: str) -> str | None:
        """Return the stop token that a text begins with; None where it begins with none."""
        match = self._special_pattern.match(text)
        return match[0] if match and match[0] in self._stops else None
