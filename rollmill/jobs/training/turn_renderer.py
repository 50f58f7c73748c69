"""One assistant turn: the prompt that a server rendered for it, and the text that the model generated behind it."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from rollmill.jobs.training.chat_template import (
    CALL_NOT_WRITTEN,
    CONTENT_NOT_WRITTEN,
    CUT_OFF_IN_CALL,
    END_NOT_WRITTEN,
    THOUGHTS_MISSING,
    THOUGHTS_NOT_WRITTEN,
    TURNS_NOT_FOUND,
    ChatTemplate,
    RefusedError,
)
from rollmill.jobs.training.rendered_text import (
    TEXT_MARK,
    call_words,
    closing_text,
    find_closed_thoughts,
    find_opener,
    has_call,
    has_empty_thoughts,
    has_raw_thoughts,
    mark_last_value,
    opens_thoughts,
    strip_empty_thoughts,
    text_behind_prompt,
)
from rollmill.jobs.training.rows import REASONING, Chat, TrainingRow
from rollmill.jobs.training.template_forms import MessageForm, call_function, write_content

_THOUGHTS_MARK = "rollmillthoughts"
_UNIQUE_LENGTH = 24
"""A text of so many characters or more does not occur in a header by chance."""


class RenderedTurn(NamedTuple):
    """One turn: the prompt's text, and the text that the model generated."""

    prompt: str
    text: str
    end: str | None
    """The end-of-turn token that `text` ends with; None where it has none."""


class TurnRenderer:
    """Renders one assistant turn of a row in one form of messages.

    The generated text is what follows the prompt in the rendering that has the turn as its last message. How far it
    goes is found by rendering variants of the conversation, not by the template's name. Options are the template's
    variables throughout.

    Args:
        template: The chat template.
        row: The row that the turn belongs to.
        messages: The row's messages, in this form, the earlier ones as the turn's prompt had them.
        number: Index of the turn in `messages`.
        form: The form of `messages`.
        is_endless: Whether the model did not end the turn, so that no end-of-turn token belongs to it.
    """

    def __init__(
        self,
        template: ChatTemplate,
        row: TrainingRow,
        messages: Chat,
        number: int,
        form: MessageForm,
        *,
        is_endless: bool,
    ) -> None:
        self._template = template
        self._row = row
        self._before = messages[:number]
        self._message = messages[number]
        self._after = messages[number + 1] if number + 1 < len(messages) else None
        self._form = form
        self._endless = is_endless
        self._cut = number in row.cut_off
        self._label = f"{template.name}: its chat template"
        self._number = number + 1
        plain = row.messages[number]
        self._content: str = plain["content"]
        self._calls: list[Any] = list(plain.get("tool_calls") or [])
        # Thoughts come apart (`reasoning_content`), raw in the content, or raw and cut off before they are closed.
        self._raw = REASONING not in plain and has_raw_thoughts(self._content)
        self._open = opens_thoughts(plain) and "</think>" in template.source(row.tools)
        head, _, self._answer = self._content.rpartition("</think>") if self._raw else ("", "", self._content)
        self._thoughts: str = head.strip().removeprefix("<think>") if self._raw else plain.get(REASONING, "")
        if self._open:
            self._answer, self._thoughts = "", self._content.lstrip().removeprefix("<think>")

    def render(self) -> RenderedTurn:
        """Return the turn under the recorded options.

        Where these do not tell whether thinking was on, and the prompt under them does not fit the turn, it is set by
        whether the turn has thoughts. Raises `RefusedError` where the turn cannot be trained on.
        """
        try:
            return self._render_under(self._row.options)
        except RefusedError as error:
            for switch in self._template.thinking_switches(self._row):
                try:
                    return self._render_under({**self._row.options, switch: bool(self._thoughts.strip())})
                except RefusedError:
                    continue
            raise error

    def _render_under(self, options: dict[str, Any]) -> RenderedTurn:
        prompt = self._template.render(self._before, self._row, options, prompt=True)
        thinks = bool(self._thoughts.strip())
        # The prompt switched thinking off, and the turn has thoughts: it was not generated behind this prompt.
        if thinks and find_closed_thoughts(prompt):
            raise RefusedError(
                THOUGHTS_NOT_WRITTEN,
                f"{self._label} closes the thoughts in the prompt of turn {self._number}, which has some",
            )
        # Templates would close these thoughts or drop them: the content itself is the generated text.
        if self._open or self._is_cut_in_opened_thoughts(prompt):
            return RenderedTurn(prompt, self._text_behind_opener(self._content, prompt), None)
        try:
            written = self._render_behind(prompt, options)
            content_end = self._check(written, prompt, options)
        except RefusedError as error:
            if not thinks:
                raise
            # Many templates drop the thoughts even of the last turn; they can be put back where the prompt opens them.
            written = self._restore_thoughts(prompt, options, error)
            content_end = self._check_words(written)
        if self._calls:
            content_end = self._end_of_calls(written, content_end, options)
        elif 0 < len(self._answer.strip()) < _UNIQUE_LENGTH:
            # A short answer may also occur in what the template writes behind it: a mark shows where it really ends.
            marked = {**self._message, "content": write_content(self._content + TEXT_MARK, self._form, calls=False)}
            content_end = self._end_before_mark(written, marked, TEXT_MARK, options) or content_end
        if self._endless:
            return RenderedTurn(prompt, self._without_end(written, content_end, options), None)
        return RenderedTurn(prompt, *self._with_end(written, content_end, options))

    def _render_behind(self, prompt: str, options: dict[str, Any]) -> str:
        """Return what the template writes behind the prompt when the turn is the last.

        Some templates write earlier messages differently then (the system message with the last user's, thoughts before
        a call). For these, a mark replaces the content before the turn, and shows where the turn begins.
        """
        rendering = self._template.render([*self._before, self._message], self._row, options)
        if (written := text_behind_prompt(rendering, prompt)) is not None:
            return written
        if self._opener(prompt) and not self._thoughts.strip():
            raise RefusedError(
                THOUGHTS_MISSING, f"{self._label} opens thoughts in the prompt, and turn {self._number} has none"
            )
        # From here on: the template rewrites earlier messages when the turn is there, so the prompt is no prefix.
        refusal = RefusedError(TURNS_NOT_FOUND, f"{self._label} writes turn {self._number} not behind its prompt")
        if not self._before:
            raise refusal
        marked = [
            *self._before[:-1],
            {**self._before[-1], "content": write_content(TEXT_MARK, self._form, calls=False)},
        ]
        ending = self._template.render(marked, self._row, options, prompt=True).rpartition(TEXT_MARK)[2]
        rest = self._template.render([*marked, self._message], self._row, options).rpartition(TEXT_MARK)[2]
        written = text_behind_prompt(rest, ending)
        # The mark must not have changed what is written behind it, in the prompt and in the rendering.
        if written is None or not prompt.endswith(ending) or not rendering.endswith(rest):
            raise refusal
        return written

    def _restore_thoughts(self, prompt: str, options: dict[str, Any], error: RefusedError) -> str:
        """Return the generated text where the template leaves the thoughts out.

        That is known where the thoughts are raw in the content, or the generation prompt opens them. Then they come
        first, followed by the closing tag as the template writes it for empty thoughts, and by the turn as the template
        writes it without thoughts. Raises `error` where it is not known.
        """
        opener = self._opener(prompt)
        header = prompt[: opener[0]] if opener else prompt
        if self._raw:
            literal = self._content[: len(self._content) - len(self._answer.lstrip())]
            head = self._text_behind_opener(literal, prompt)
        elif not opener:
            raise error
        plain = {key: value for key, value in self._message.items() if key != self._form.reasoning}
        plain = {**plain, "content": write_content(self._answer.strip(), self._form, calls=bool(self._calls))}
        rendering = self._template.render([*self._before, plain], self._row, options)
        # Earlier messages have to be the same: else nothing tells where the turn begins.
        if not rendering.startswith(header):
            raise error
        rest = rendering.removeprefix(header)
        if not self._raw and opener:
            head = self._thoughts.strip() + closing_text(prompt[opener[0] :], opener[1], rest)
        return head + strip_empty_thoughts(rest)

    def _is_cut_in_opened_thoughts(self, prompt: str) -> bool:
        """Return whether the content can only be thoughts that the prompt opened, cut off before they were closed.

        Servers with a reasoning parser report them apart; this is for those without.
        """
        is_plain = not self._calls and not self._raw and not self._thoughts.strip()
        return self._cut and is_plain and bool(self._content.strip()) and self._opener(prompt) is not None

    def _text_behind_opener(self, content: str, prompt: str) -> str:
        """Return content that begins with raw thoughts as the model generated it, without the prompt's opening tag.

        Line breaks are the content's, except for those that are in the prompt already.
        """
        opener = self._opener(prompt)
        opened = prompt[opener[0] :] if opener else ""
        text = content.lstrip()
        if not opened or not text.startswith(opened.rstrip()):
            return text
        return text.removeprefix(opened) if text.startswith(opened) else text.removeprefix(opened.rstrip()).lstrip("\n")

    def _opener(self, prompt: str) -> tuple[int, str] | None:
        """Return where the prompt opens thoughts, and the tag that closes them; None where it opens none."""
        opener = find_opener(prompt)
        # Any tag may end a prompt; thoughts are those that the template knows how to close.
        return opener if opener and opener[1] in self._template.source(self._row.tools) else None

    def _check(self, written: str, prompt: str, options: dict[str, Any]) -> int:
        """Return where the last of thoughts, content and calls ends in the rendered turn.

        Raises `RefusedError` where one of them is not in it.
        """
        short = any(0 < len(text.strip()) < _UNIQUE_LENGTH for text in (self._thoughts, self._answer))
        if short and not self._raw:
            self._check_marks(prompt, options)
        return self._check_words(written)

    def _check_marks(self, prompt: str, options: dict[str, Any]) -> None:
        """Check that the template writes thoughts and content, by marks in their place: short texts match by chance."""
        marked = dict(self._message)
        if self._thoughts.strip():
            marked[self._form.reasoning] = _THOUGHTS_MARK
        if self._content.strip():
            marked["content"] = write_content(TEXT_MARK, self._form, calls=bool(self._calls))
        text = self._template.render([*self._before, marked], self._row, options).removeprefix(prompt)
        if self._thoughts.strip() and _THOUGHTS_MARK not in text:
            raise self._omission(THOUGHTS_NOT_WRITTEN, "the thoughts")
        if self._content.strip() and TEXT_MARK not in text:
            raise self._omission(CONTENT_NOT_WRITTEN, "the content")

    def _check_words(self, written: str) -> int:
        """Return where the content ends in the rendered turn, after checking that thoughts, content and calls occur."""
        content_end, rest = 0, written
        if self._thoughts.strip() and has_empty_thoughts(written):
            raise self._omission(THOUGHTS_NOT_WRITTEN, "the thoughts")
        # Raw thoughts may be written as they are, within the content, or in the template's own form.
        is_verbatim = self._raw and self._content.strip() in written
        thoughts, answer = ("", self._content) if is_verbatim else (self._thoughts, self._answer)
        for text, reason, what in (
            (thoughts.strip(), THOUGHTS_NOT_WRITTEN, "the thoughts"),
            (answer.strip(), CONTENT_NOT_WRITTEN, "the content"),
        ):
            is_content = reason == CONTENT_NOT_WRITTEN
            begin = self._find_content(written, text, content_end) if is_content else written.find(text, content_end)
            if begin < 0:
                raise self._omission(reason, what)
            if text:
                content_end = begin + len(text)
                # A call that the content quotes does not count as written.
                rest = rest.replace(text, " ", 1)
        for call in self._calls:
            if not has_call(rest, call):
                raise self._omission(CALL_NOT_WRITTEN, "a call, or its arguments as they are,")
        return content_end

    def _find_content(self, written: str, text: str, begin: int) -> int:
        """Return where the content begins: its first occurrence before calls, which may repeat it, else its last."""
        if self._calls:
            return written.find(text, begin)
        index = written.rfind(text, begin, self._before_end(written))
        return index if index >= 0 else written.find(text, begin)

    def _end_of_calls(self, written: str, content_end: int, options: dict[str, Any]) -> int:
        """Return where the last value of the last call ends.

        Raises `RefusedError` where that is not known of a turn that was cut off: nothing behind it is the model's.
        """
        if end := self._end_of_last_value(written, options):
            return max(content_end, end)
        if self._cut:
            raise RefusedError(
                CUT_OFF_IN_CALL,
                f"turn {self._number} was cut off, and {self._label} does not show where its call's arguments end",
            )
        # The call has no value that could be marked, or the template refuses the mark: the last word of any call.
        limit = self._before_end(written)
        words = [word for call in self._calls for word in call_words(call)]
        begins = [(written.rfind(word, 0, limit), word) for word in words]
        return max([content_end, *(begin + len(word) for begin, word in begins if begin >= 0)])

    def _end_of_last_value(self, written: str, options: dict[str, Any]) -> int | None:
        *calls, last = self._message["tool_calls"]
        marked = mark_last_value(call_function(self._calls[-1]).get("arguments"))
        if marked is None:
            return None
        arguments, mark = marked
        if self._form.text_arguments and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        last = {**last, "function": {**last["function"], "arguments": arguments}}
        return self._end_before_mark(written, {**self._message, "tool_calls": [*calls, last]}, mark, options)

    def _end_before_mark(self, written: str, marked: dict[str, Any], mark: str, options: dict[str, Any]) -> int | None:
        """Return where a text ends in the rendered turn; None where that is not known.

        What the template writes behind the mark, it writes behind the text: so its length gives the end, also of short
        texts that occur by chance in what the template writes behind them.

        Args:
            written: The rendered turn.
            marked: The message with a mark behind the text, or in its place.
            mark: The mark.
            options: Variables of the template.
        """
        try:
            text = self._template.render([*self._before, marked], self._row, options)
        except RefusedError:
            return None
        _, mark_in_text, tail = text.rpartition(mark)
        return len(written) - len(tail) if mark_in_text and written.endswith(tail) else None

    def _before_end(self, written: str) -> int:
        """Return where the last special token begins, if only blanks follow it: no content can be in it."""
        last = next(reversed(self._template.specials(written)), None)
        return last.start() if last and not written[last.end() :].strip() else len(written)

    def _omission(self, reason: str, what: str) -> RefusedError:
        return RefusedError(reason, f"{self._label} leaves {what} of turn {self._number} out")

    def _with_end(self, written: str, content_end: int, options: dict[str, Any]) -> tuple[str, str | None]:
        """Return the text up to one end-of-turn token, and that token."""
        # Behind the content: line breaks, tags that close a call, the end token, and perhaps the next header.
        tail = written[content_end:]
        specials = self._template.specials(tail)
        last = specials[-1] if specials else None
        if last is None or tail[last.end() :].strip():
            stop = next((token for token in specials if self._template.is_stop(token[0])), None)
            if stop:  # some write the generation prompt behind every conversation
                return written[: content_end + stop.end()], stop[0]
            return self._with_next_stop(written, content_end, options)
        if len(specials) > 1:
            # For example `<|im_end|>` and a `<|endoftext|>` that is written at the end of every conversation.
            last = self._choose_end(specials, self._shared_with_next(tail, options), options)
        # The only special token may close the call, with the end token written before the next message only.
        if self._calls and not self._template.is_stop(last[0]) and self._closes_a_call(last[0], options):
            text, end = self._with_next_stop(written, content_end + last.end(), options)
            if end:
                return text, end
            raise RefusedError(END_NOT_WRITTEN, f"{self._label} writes no end behind the call of turn {self._number}")
        return written[: content_end + last.end()], last[0]

    def _choose_end(self, specials: list[re.Match[str]], shared: int, options: dict[str, Any]) -> re.Match[str]:
        """Return the end-of-turn token among the special tokens behind a turn.

        It must also be written when the conversation goes on, that is within the first `shared` characters of the tail.
        Of these the first stop token; else the last that does not begin conversations, since some templates write
        behind every turn what begins the next.
        """
        kept = [token for token in specials if token.end() <= shared] or specials
        stops = [token for token in kept if self._template.is_stop(token[0])]
        if stops:
            return stops[0]
        prompt = self._template.render(self._before, self._row, options, prompt=True)
        openers = self._template.leading_specials(prompt)
        return next((token for token in reversed(kept) if token[0] not in openers), kept[-1])

    def _without_end(self, written: str, content_end: int, options: dict[str, Any]) -> str:
        """Return the text of a turn that the model did not end.

        Complete calls keep all that closes them; of a turn that was cut off nothing is known behind its last word.
        """
        if not self._calls or self._cut:
            return written[:content_end]
        try:
            text, end = self._with_end(written, content_end, options)
        except RefusedError:
            return written[:content_end]
        return text.removesuffix(end or "")

    def _with_next_stop(self, written: str, content_end: int, options: dict[str, Any]) -> tuple[str, str | None]:
        """Return a text that has no end token, with the stop token that the template writes before the next message.

        Some templates leave the end of the last turn to the model, and for some the next role's token is the end. The
        text stays as it is, and the token is None, where no stop token follows.
        """
        following = self._render_following(options)
        kept = written[: max(content_end, len(written.rstrip()))]
        if following is None or not following.startswith(kept):
            return kept, None
        rest = following.removeprefix(kept)
        blank = len(rest) - len(rest.lstrip())
        stop = self._template.leading_stop(rest[blank:])
        return (kept + rest[:blank] + stop, stop) if stop else (kept, None)

    def _shared_with_next(self, tail: str, options: dict[str, Any]) -> int:
        """Return how many characters of a turn's tail the template also writes when the conversation goes on."""
        following = self._render_following(options, behind=tail)
        if following is None:
            return 0
        return next(
            (index for index, (left, right) in enumerate(zip(tail, following, strict=False)) if left != right),
            min(len(tail), len(following)),
        )

    def _render_following(self, options: dict[str, Any], behind: str | None = None) -> str | None:
        """Return the rendering from the prompt's end on when the conversation goes on after the turn.

        With `behind`, the tail of the turn when it is last, from where that tail begins. None where the template
        refuses.
        """
        reply = {"role": "user", "content": write_content(TEXT_MARK, self._form, calls=False)}
        if self._calls:
            # Templates expect a tool's result behind a call.
            first = self._message["tool_calls"][0]
            identity = first.get("id") if isinstance(first, dict) else None
            reply = {**reply, "role": "tool", **({"tool_call_id": identity} if identity else {})}
        # Without thoughts: many templates drop them once the conversation goes on, which would be no common beginning.
        plain = {key: value for key, value in self._message.items() if key != self._form.reasoning}
        try:
            prompt = self._template.render(self._before, self._row, options, prompt=True)
            continued = self._template.render([*self._before, plain, self._after or reply], self._row, options)
            if behind is None:
                return text_behind_prompt(continued, prompt)
            ended = self._template.render([*self._before, plain], self._row, options)
        except RefusedError:
            return None
        if not ended.endswith(behind):
            return None
        head = ended[: len(ended) - len(behind)]
        return continued.removeprefix(head) if continued.startswith(head) else None

    def _closes_a_call(self, token: str, options: dict[str, Any]) -> bool:
        """Return whether the template writes a token once for each call, so that it is not the turn's end."""
        twice = {**self._message, "tool_calls": [*self._message["tool_calls"], self._message["tool_calls"][-1]]}
        try:
            count_once, count_twice = (
                self._template.render([*self._before, message], self._row, options).count(token)
                for message in (self._message, twice)
            )
        except RefusedError:
            return False
        return count_twice > count_once
