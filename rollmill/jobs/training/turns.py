"""The assistant turns of a row as prompts and generated texts, whatever the chat template.

A turn is trained on behind the very prompt that a server renders for it: the messages before it, the tools, the
recorded `chat_template_kwargs`, and the generation prompt. The generated text is the rest of the rendering that has the
turn as its last message, up to one end-of-turn token. Nothing is decided by a template's name: templates render
messages in the forms that servers and producers use, and a rendering counts only when thoughts, content and calls are
all in it.
"""

from __future__ import annotations

from typing import NamedTuple

from rollmill.jobs.training.chat_template import (
    END_NOT_WRITTEN,
    SPECIAL_TEXT,
    TEMPLATE_REFUSED,
    THOUGHTS_NOT_CLOSED,
    TURN_EMPTY,
    ChatTemplate,
    RefusedError,
)
from rollmill.jobs.training.rendered_text import opens_thoughts, written_texts
from rollmill.jobs.training.rows import REASONING, TrainingRow, has_answer
from rollmill.jobs.training.template_forms import MessageForm, message_forms, write_messages
from rollmill.jobs.training.turn_renderer import RenderedTurn, TurnRenderer


class RowTurns(NamedTuple):
    """The turns of a row that can be trained on, and why the others cannot."""

    turns: list[RenderedTurn]
    refused: list[RefusedError]

    @property
    def score(self) -> tuple[int, int, int]:
        """Rank for comparing forms: usable turns, then turns whose call is at least in the context of the next.

        The last figure counts those that the template did not refuse: leaving something out is more informative than
        refusing the form.
        """
        reasons = [error.reason for error in self.refused]
        return len(self.turns), reasons.count(END_NOT_WRITTEN), -reasons.count(TEMPLATE_REFUSED)


def render_turns(template: ChatTemplate, row: TrainingRow, *, allow_special_text: bool = False) -> RowTurns:
    """Return the row's turns in the form of messages that loses least.

    A turn that has a special token as text is left out unless `allow_special_text` (for those who use the prompts
    only): whether the model generated that token or its letters is not known, and it may look like the turn's end.
    """
    unusable = {
        number: error
        for number in row.trained
        if (error := _check_turn(template, row, number, allow_special_text=allow_special_text))
    }
    usable = [number for number in row.trained if number not in unusable]
    best: RowTurns | None = None
    for form in message_forms(row, template.reasoning_names):
        candidate = _render_in_form(template, row, usable, form)
        if best is None or candidate.score > best.score:
            best = candidate
        if not candidate.refused:
            break
    assert best is not None
    return RowTurns(best.turns, [*best.refused, *unusable.values()])


def _check_turn(
    template: ChatTemplate, row: TrainingRow, number: int, *, allow_special_text: bool
) -> RefusedError | None:
    """Return why a turn cannot be trained on, whatever the form of its messages; None where it can.

    Args:
        template: The chat template, for its special tokens.
        row: The row.
        number: Index of the turn in the row's messages.
        allow_special_text: Whether special tokens may occur as text.
    """
    message = row.messages[number]
    if not has_answer(message) and not (number in row.cut_off and REASONING in message):
        return RefusedError(TURN_EMPTY, f"turn {number + 1} has neither content nor calls")
    if opens_thoughts(message) and (number not in row.endless or message.get("tool_calls")):
        return RefusedError(THOUGHTS_NOT_CLOSED, f"turn {number + 1} opens thoughts and does not close them")
    token = None if allow_special_text else template.first_special("\n".join(written_texts(message)))
    if token:
        return RefusedError(SPECIAL_TEXT, f"turn {number + 1} has the special token {token} as text")
    return None


def _render_in_form(template: ChatTemplate, row: TrainingRow, numbers: list[int], form: MessageForm) -> RowTurns:
    """Return the turns at `numbers` (indices of messages), all in one form.

    Args:
        template: The chat template.
        row: The row.
        numbers: Indices of the turns in the row's messages.
        form: The form.
    """
    messages, context = write_messages(row.messages, form), write_messages(row.context, form)
    turns, refused = [], []
    for number in numbers:
        # Earlier messages as this turn's prompt had them; the turn itself, and what follows, as they were written.
        shown = [*context[:number], *messages[number:]]
        renderer = TurnRenderer(template, row, shown, number, form, is_endless=number in row.endless)
        try:
            turns.append(renderer.render())
        except RefusedError as error:
            refused.append(error)
    return RowTurns(turns, refused)
