"""What a model was shown and what it wrote, turn by turn, whatever the chat template.

A turn is learnt behind the very prompt that a server renders for it: the messages before it, the tools, the recorded
`chat_template_kwargs`, and the generation prompt. What the model wrote is the rest of the rendering that has the turn
as its last message, up to one end-of-turn token. Nothing is decided by a template's name: templates are asked in the
forms that servers and producers use, and an answer counts only when thoughts, content and calls are all in it.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Collection, Iterator
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from rollmill.jobs.training.rows import REASONING, CallArguments, Chat, TrainingRow, says_something

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

_MARK = "rollmillturn"
_THOUGHTS_MARK = "rollmillthoughts"
_NUMBER_MARK = 7391824650391827
_SURE = 24
"""A text of so many characters that is found in a rendering is no chance hit in a header."""
_READ_NAMES = (REASONING, "reasoning", "thinking")
_SWITCHES = ("enable_thinking", "thinking")
"""Variables by which templates open or close thoughts in the generation prompt."""
_OPENER = re.compile(r"(?:<(\w{1,40})>|\[([A-Z_]{1,40})\])\s{0,8}$")
_CLOSED = re.compile(
    r"(?:<([\w:]{1,40})>\s{0,8}</\1>|</[\w:]{0,20}(?:think|thought|reason)\w{0,20}>"
    r"|\[(\w{0,20}THINK\w{0,20})\]\s{0,8}\[/\2\]|<\|(\w{1,40})>\w{0,40}\s{0,8}<\3\|>)\s{0,8}$"
)
"""Thoughts that a prompt closes: an empty block, or the mark that closes one."""
_TAIL = 200
"""Characters of a prompt in which it opens or closes thoughts."""
_NO_THOUGHTS = re.compile(r"\s{0,8}(?:<(\w{1,40})>\s{0,8})?</\w{1,40}>\s{0,8}")
_QUOTED_MARK = re.compile(r"([`'\"])</think>\1(?!.*</think>)", re.DOTALL)
_ID = re.compile(r"[a-zA-Z0-9]{9}")


class WrittenTurn(NamedTuple):
    """One turn: the text that the model was shown, and what it wrote."""

    prompt: str
    text: str
    end: str | None
    """The end-of-turn token that `text` ends with; None where it has none."""


class RefusedError(Exception):
    """A turn, or a conversation, cannot be used with this template. `reason` is a word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class TurnsOfRow(NamedTuple):
    """What can be learnt of a row, and why the rest cannot."""

    turns: list[WrittenTurn]
    refused: list[RefusedError]

    @property
    def worth(self) -> tuple[int, int, int]:
        """How many turns can be learnt, of how many others at least the call stands in the context of the next.

        The last figure is how many are not refused: what a template leaves out says more than that it refuses a form.
        """
        reasons = [error.reason for error in self.refused]
        return len(self.turns), reasons.count(END_NOT_WRITTEN), -reasons.count(TEMPLATE_REFUSED)


class _Form(NamedTuple):
    """A way of writing messages down for a template."""

    reasoning: str = REASONING
    null_content: bool = False
    """Whether the empty content of a turn that calls is null."""
    text_arguments: bool = False
    short_ids: bool = False
    """Whether ids of calls have nine letters."""
    parts: bool = False
    """Whether contents are lists of parts."""


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: A tokenizer of transformers.
        name: What messages call it.
        stops: Tokens, as text, that the model's generation ends at.
    """

    def __init__(self, tokenizer: Any, name: str, stops: Collection[str] = ()) -> None:
        self.name = name
        self._tokenizer = tokenizer
        tokens = tokenizer.added_tokens_decoder.values()
        added = (str(token) for token in tokens if token.special or str(token) in stops)
        self._special = {token for token in (*tokenizer.all_special_tokens, *added) if token}
        self._stops = {*stops, *([tokenizer.eos_token] if tokenizer.eos_token else [])}
        pattern = "|".join(re.escape(token) for token in sorted(self._special, key=lambda token: (-len(token), token)))
        self._special_pattern = re.compile(pattern or "(?!)")

    def is_end(self, token: str) -> bool:
        """Tell whether a token ends turns: the model stops at it, or it is a special one."""
        return token in self._stops or token in self._special

    def turns(self, row: TrainingRow, *, text_is_learnt: bool = True) -> TurnsOfRow:
        """Return the row's turns as they were prompted and written, in the form of messages that loses least.

        A turn that holds a special token as text is left out unless only the prompts are asked for: whether the model
        wrote that token or its letters is not known, and a template's reader cannot tell it from the end.
        """
        unusable = {number: error for number in row.learnt if (error := self._unusable(row, number, text_is_learnt))}
        spoken = [number for number in row.learnt if number not in unusable]
        best: TurnsOfRow | None = None
        for form in self._forms(row):
            found = self._in_form(row, spoken, form)
            if best is None or found.worth > best.worth:
                best = found
            if not found.refused:
                break
        assert best is not None
        return TurnsOfRow(best.turns, [*best.refused, *unusable.values()])

    def _unusable(self, row: TrainingRow, number: int, text_is_learnt: bool) -> RefusedError | None:
        """Return why a turn cannot be learnt, whatever the template."""
        if not self._says_something(row, number):
            return RefusedError(TURN_EMPTY, f"turn {number + 1} has neither content nor calls")
        message = row.messages[number]
        if _opens_thoughts(message) and (number not in row.endless or message.get("tool_calls")):
            return RefusedError(THOUGHTS_NOT_CLOSED, f"turn {number + 1} opens thoughts and does not close them")
        found = self._special_pattern.search("\n".join(_texts(message))) if text_is_learnt else None
        if found:
            return RefusedError(SPECIAL_TEXT, f"turn {number + 1} has the special token {found[0]} as text")
        return None

    def _says_something(self, row: TrainingRow, number: int) -> bool:
        message = row.messages[number]
        return says_something(message) or (number in row.cut_off and REASONING in message)

    def _in_form(self, row: TrainingRow, spoken: list[int], form: _Form) -> TurnsOfRow:
        messages, context = _in_form(row.messages, form), _in_form(row.context, form)
        turns, refused = [], []
        for number in spoken:
            shown = [*context[:number], *messages[number:]]
            try:
                turns.append(_Turn(self, row, shown, number, form, is_endless=number in row.endless).written())
            except RefusedError as error:
                refused.append(error)
        return TurnsOfRow(turns, refused)

    def _forms(self, row: TrainingRow) -> Iterator[_Form]:
        """Yield the forms that make a difference to this row, the usual one first."""
        calls = [message for message in row.messages if message.get("tool_calls")]
        thinks = any(REASONING in message for message in row.messages)
        silent = any(not message["content"] for message in calls)
        odd_ids = any(not _ID.fullmatch(str(call.get("id"))) for message in calls for call in _dicts(message))
        both, one = (False, True), (False,)
        for short, text, null, name in product(
            both if odd_ids else one,
            both if calls else one,
            both if silent else one,
            self._reasoning_names if thinks else (REASONING,),
        ):
            yield _Form(name, null, text, short)
        yield _Form(self._reasoning_names[0], parts=True)

    @cached_property
    def _reasoning_names(self) -> tuple[str, ...]:
        """The names of thoughts that the template may read: as an attribute first, then as any word in it."""
        source = self.source()
        attributes = [name for name in _READ_NAMES if re.search(rf"\.{name}\b|\[['\"]{name}['\"]\]", source)]
        words = [name for name in _READ_NAMES if re.search(rf"\b{name}\b", source)]
        return tuple(dict.fromkeys([*attributes, *words])) or (REASONING,)

    def source(self, tools: list[Any] | None = None) -> str:
        """Return the template's text."""
        return str(self._tokenizer.get_chat_template(tools=tools))

    def switches(self, row: TrainingRow) -> list[str]:
        """Return the variables that open or close thoughts in the prompt, and that the row does not set."""
        source = self.source(row.tools)
        return [name for name in _SWITCHES if name not in row.options and re.search(rf"(?<![\w.'\"]){name}\b", source)]

    def render(self, messages: Chat, row: TrainingRow, options: dict[str, Any], *, prompt: bool = False) -> str:
        """Return the text. Raises `RefusedError` where the template refuses."""
        try:
            # A batch of one: a conversation alone may not be empty.
            texts = self._tokenizer.apply_chat_template(
                [messages], tools=row.tools, tokenize=False, **{**options, "add_generation_prompt": prompt}
            )
        except Exception as error:  # a template is a program of its own: it may raise anything
            raise RefusedError(TEMPLATE_REFUSED, f"the chat template refuses it: {error}") from error
        return str(texts[0])

    def specials(self, text: str) -> list[re.Match[str]]:
        """Return where special tokens stand in a text."""
        return list(self._special_pattern.finditer(text))

    def openers(self, text: str) -> set[str]:
        """Return the special tokens that a text begins with."""
        found: set[str] = set()
        end = 0
        for token in self._special_pattern.finditer(text):
            if text[end : token.start()].strip():
                break
            found.add(token[0])
            end = token.end()
        return found

    def stop_at(self, text: str) -> str | None:
        """Return the special token at which generation ends, where the text begins with one."""
        found = self._special_pattern.match(text)
        return found[0] if found and found[0] in self._stops else None


class _Turn:
    """One turn of a row in one form of messages."""

    def __init__(
        self, template: ChatTemplate, row: TrainingRow, messages: Chat, number: int, form: _Form, *, is_endless: bool
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
        self._raw = REASONING not in plain and _has_raw_thoughts(self._content)
        self._open = _opens_thoughts(plain) and "</think>" in template.source(row.tools)
        head, _, self._answer = self._content.rpartition("</think>") if self._raw else ("", "", self._content)
        self._thoughts: str = head.strip().removeprefix("<think>") if self._raw else plain.get(REASONING, "")
        if self._open:
            self._answer, self._thoughts = "", self._content.lstrip().removeprefix("<think>")

    def written(self) -> WrittenTurn:
        """Return the turn under the recorded options.

        Where these do not say whether the model was to think, and the prompt under them fits no such turn, under those
        that let it think where it has thought, and not where it has not.
        """
        try:
            return self._under(self._row.options)
        except RefusedError as error:
            for switch in self._template.switches(self._row):
                try:
                    return self._under({**self._row.options, switch: bool(self._thoughts.strip())})
                except RefusedError:
                    continue
            raise error

    def _under(self, options: dict[str, Any]) -> WrittenTurn:
        prompt = self._template.render(self._before, self._row, options, prompt=True)
        thinks = bool(self._thoughts.strip())
        if thinks and _closed(prompt):
            raise RefusedError(THOUGHTS_NOT_WRITTEN, f"{self._label} closes the thoughts in the prompt of turn "
                               f"{self._number}, which has some")  # fmt: skip
        if self._open or self._is_cut_in_opened_thoughts(prompt):
            return WrittenTurn(prompt, self._behind_opener(self._content, prompt), None)
        try:
            written = self._behind(prompt, options)
            floor = self._check(written, prompt, options)
        except RefusedError as error:
            if not thinks:
                raise
            written = self._with_thoughts(prompt, options, error)
            floor = self._check_words(written)
        if self._calls:
            floor = self._behind_calls(written, floor, options)
        elif 0 < len(self._answer.strip()) < _SURE:
            marked = {**self._message, "content": _content(self._content + _MARK, self._form, calls=False)}
            floor = self._behind_mark(written, marked, _MARK, options) or floor
        if self._endless:
            return WrittenTurn(prompt, self._without_end(written, floor, options), None)
        return WrittenTurn(prompt, *self._ended(written, floor, options))

    def _behind(self, prompt: str, options: dict[str, Any]) -> str:
        """Return what the template writes behind the prompt when the turn is the last.

        Some write what comes before in another way then (the system message with the last user's, thoughts before a
        call): they are asked where the turn begins with a mark in place of the content before it.
        """
        whole = self._template.render([*self._before, self._message], self._row, options)
        if (written := _behind_prompt(whole, prompt)) is not None:
            return written
        if self._opener(prompt) and not self._thoughts.strip():
            raise RefusedError(THOUGHTS_MISSING, f"{self._label} opens thoughts in the prompt, and turn {self._number} "
                               "has none")  # fmt: skip
        refusal = RefusedError(TURNS_NOT_FOUND, f"{self._label} writes turn {self._number} not behind its prompt")
        if not self._before:
            raise refusal
        marked = [*self._before[:-1], {**self._before[-1], "content": _content(_MARK, self._form, calls=False)}]
        ending = self._template.render(marked, self._row, options, prompt=True).rpartition(_MARK)[2]
        rest = self._template.render([*marked, self._message], self._row, options).rpartition(_MARK)[2]
        written = _behind_prompt(rest, ending)
        if written is None or not prompt.endswith(ending) or not whole.endswith(rest):
            raise refusal
        return written

    def _with_thoughts(self, prompt: str, options: dict[str, Any], error: RefusedError) -> str:
        """Return what a model wrote whose template leaves the thoughts out.

        That is known where the thoughts stand in the content as they were written, and where the generation prompt
        opens them: then they come first, the closing mark follows as the template writes it behind empty ones, and the
        turn as the template writes it without thoughts.
        """
        opener = self._opener(prompt)
        header = prompt[: opener[0]] if opener else prompt
        if self._raw:
            literal = self._content[: len(self._content) - len(self._answer.lstrip())]
            head = self._behind_opener(literal, prompt)
        elif not opener:
            raise error
        plain = {key: value for key, value in self._message.items() if key != self._form.reasoning}
        plain = {**plain, "content": _content(self._answer.strip(), self._form, calls=bool(self._calls))}
        whole = self._template.render([*self._before, plain], self._row, options)
        if not whole.startswith(header):
            raise error
        rest = whole.removeprefix(header)
        if not self._raw and opener:
            head = self._thoughts.strip() + _closing(prompt[opener[0] :], opener[1], rest)
        return head + _without_block(rest)

    def _is_cut_in_opened_thoughts(self, prompt: str) -> bool:
        """Return whether a content can only be thoughts that the prompt opened: cut off, with nothing that closes them.

        Servers with a parser say them apart.
        """
        is_plain = not self._calls and not self._raw and not self._thoughts.strip()
        return self._cut and is_plain and bool(self._content.strip()) and self._opener(prompt) is not None

    def _behind_opener(self, content: str, prompt: str) -> str:
        """Return content that begins with its thoughts as a model writes it behind a prompt that may have opened them.

        The line breaks are those of the content but for what stands in the prompt already.
        """
        opener = self._opener(prompt)
        opened = prompt[opener[0] :] if opener else ""
        text = content.lstrip()
        if not opened or not text.startswith(opened.rstrip()):
            return text
        return text.removeprefix(opened) if text.startswith(opened) else text.removeprefix(opened.rstrip()).lstrip("\n")

    def _opener(self, prompt: str) -> tuple[int, str] | None:
        """Return where the prompt opens thoughts, and the mark that closes them; None where it does not."""
        found = _OPENER.search(prompt, max(0, len(prompt) - _TAIL))
        if not found:
            return None
        closing = f"</{found[1]}>" if found[1] else f"[/{found[2]}]"
        is_closed = closing in self._template.source(self._row.tools)
        return (found.start(), closing) if is_closed else None

    def _check(self, written: str, prompt: str, options: dict[str, Any]) -> int:
        """Return where the last of thoughts, content and calls ends in what the template writes for the turn.

        Raises `RefusedError` where one of them is not in it.
        """
        short = any(0 < len(text.strip()) < _SURE for text in (self._thoughts, self._answer))
        if short and not self._raw:
            self._check_marks(prompt, options)
        return self._check_words(written)

    def _check_marks(self, prompt: str, options: dict[str, Any]) -> None:
        """Ask with marks in place of short texts, which may be found by chance."""
        marked = dict(self._message)
        if self._thoughts.strip():
            marked[self._form.reasoning] = _THOUGHTS_MARK
        if self._content.strip():
            marked["content"] = _content(_MARK, self._form, calls=bool(self._calls))
        text = self._template.render([*self._before, marked], self._row, options).removeprefix(prompt)
        if self._thoughts.strip() and _THOUGHTS_MARK not in text:
            raise self._missing(THOUGHTS_NOT_WRITTEN, "the thoughts")
        if self._content.strip() and _MARK not in text:
            raise self._missing(CONTENT_NOT_WRITTEN, "the content")

    def _check_words(self, written: str) -> int:
        floor, rest = 0, written
        if self._thoughts.strip() and _NO_THOUGHTS.match(written):
            raise self._missing(THOUGHTS_NOT_WRITTEN, "the thoughts")
        whole_raw = self._raw and self._content.strip() in written
        thoughts, answer = ("", self._content) if whole_raw else (self._thoughts, self._answer)
        for text, reason, what in (
            (thoughts.strip(), THOUGHTS_NOT_WRITTEN, "the thoughts"),
            (answer.strip(), CONTENT_NOT_WRITTEN, "the content"),
        ):
            begin = self._last(written, text, floor) if reason == CONTENT_NOT_WRITTEN else written.find(text, floor)
            if begin < 0:
                raise self._missing(reason, what)
            if text:
                floor = begin + len(text)
                rest = rest.replace(text, " ", 1)
        for call in self._calls:
            if not _has_call(rest, call):
                raise self._missing(CALL_NOT_WRITTEN, "a call, or its arguments as they are,")
        return floor

    def _last(self, written: str, text: str, floor: int) -> int:
        """Return where the content begins: before calls, which may repeat it, the first time, else the last."""
        if self._calls:
            return written.find(text, floor)
        begin = written.rfind(text, floor, self._before_end(written))
        return begin if begin >= 0 else written.find(text, floor)

    def _behind_calls(self, written: str, floor: int, options: dict[str, Any]) -> int:
        """Return where the last value of the last call ends.

        Raises `RefusedError` where that is not known of a turn that was cut off, of which nothing is known behind it.
        """
        if found := self._behind_last_value(written, options):
            return max(floor, found)
        if self._cut:
            raise RefusedError(CUT_OFF_IN_CALL, f"turn {self._number} was cut off, and {self._label} does not show "
                               "where its call's arguments end")  # fmt: skip
        limit = self._before_end(written)
        words = [word for call in self._calls for word in _call_words(call)]
        begins = [(written.rfind(word, 0, limit), word) for word in words]
        return max([floor, *(begin + len(word) for begin, word in begins if begin >= 0)])

    def _behind_last_value(self, written: str, options: dict[str, Any]) -> int | None:
        *calls, last = self._message["tool_calls"]
        marked = _marked(_function(self._calls[-1]).get("arguments"))
        if marked is None:
            return None
        arguments, mark = marked
        if self._form.text_arguments and not isinstance(arguments, str):
            arguments = json.dumps(arguments, ensure_ascii=False)
        last = {**last, "function": {**last["function"], "arguments": arguments}}
        return self._behind_mark(written, {**self._message, "tool_calls": [*calls, last]}, mark, options)

    def _behind_mark(self, written: str, marked: dict[str, Any], mark: str, options: dict[str, Any]) -> int | None:
        """Return where the text ends that a mark stands behind, or in place of, in a message.

        What follows the mark follows the text: short texts may be found by chance in what a template writes behind.
        """
        try:
            text = self._template.render([*self._before, marked], self._row, options)
        except RefusedError:
            return None
        _, found, tail = text.rpartition(mark)
        return len(written) - len(tail) if found and written.endswith(tail) else None

    def _before_end(self, written: str) -> int:
        """Return where the last special token begins that only blanks follow: nothing that was said may lie in it."""
        last = next(reversed(self._template.specials(written)), None)
        return last.start() if last and not written[last.end() :].strip() else len(written)

    def _missing(self, reason: str, what: str) -> RefusedError:
        return RefusedError(reason, f"{self._label} leaves {what} of turn {self._number} out")

    def _ended(self, written: str, floor: int, options: dict[str, Any]) -> tuple[str, str | None]:
        """Return the text up to one end-of-turn token, and that token."""
        tail = written[floor:]
        specials = self._template.specials(tail)
        last = specials[-1] if specials else None
        if last is None or tail[last.end() :].strip():
            stop = next((found for found in specials if found[0] in self._template._stops), None)
            if stop:  # some write the generation prompt behind every conversation
                return written[: floor + stop.end()], stop[0]
            return self._with_stop(written, floor, options)
        if len(specials) > 1:
            last = self._end_of(specials, self._shared_with_next(tail, options), options)
        if self._calls and last[0] not in self._template._stops and self._closes_a_call(last[0], options):
            text, end = self._with_stop(written, floor + last.end(), options)
            if end:
                return text, end
            raise RefusedError(END_NOT_WRITTEN, f"{self._label} writes no end behind the call of turn {self._number}")
        return written[: floor + last.end()], last[0]

    def _end_of(self, specials: list[re.Match[str]], shared: int, options: dict[str, Any]) -> re.Match[str]:
        """Return the end among the special tokens behind a turn.

        It is one that stands there, too, when the conversation goes on: the first that the model stops at; else the
        last that does not begin conversations, since some templates write behind every turn what begins the next.
        """
        kept = [found for found in specials if found.end() <= shared] or specials
        stops = [found for found in kept if found[0] in self._template._stops]
        if stops:
            return stops[0]
        openers = self._template.openers(self._template.render(self._before, self._row, options, prompt=True))
        return next((found for found in reversed(kept) if found[0] not in openers), kept[-1])

    def _without_end(self, written: str, floor: int, options: dict[str, Any]) -> str:
        """Return the text of a turn that the model did not end.

        Whole calls have all that closes them; of a turn that was cut off nothing is known behind their last word.
        """
        if not self._calls or self._cut:
            return written[:floor]
        try:
            text, end = self._ended(written, floor, options)
        except RefusedError:
            return written[:floor]
        return text.removesuffix(end or "")

    def _with_stop(self, written: str, floor: int, options: dict[str, Any]) -> tuple[str, str | None]:
        """Return a text without end token as it is, or with the one that the template writes before what comes next.

        Some leave the end of the last turn to the model, and for some the next speaker's token is the end.
        """
        following = self._following(options)
        kept = written[: max(floor, len(written.rstrip()))]
        if following is None or not following.startswith(kept):
            return kept, None
        rest = following.removeprefix(kept)
        blank = len(rest) - len(rest.lstrip())
        stop = self._template.stop_at(rest[blank:])
        return (kept + rest[:blank] + stop, stop) if stop else (kept, None)

    def _shared_with_next(self, tail: str, options: dict[str, Any]) -> int:
        """Return how much of a turn's tail the template writes, too, when the conversation goes on."""
        following = self._following(options, behind=tail)
        if following is None:
            return 0
        return next(
            (index for index, (a, b) in enumerate(zip(tail, following, strict=False)) if a != b),
            min(len(tail), len(following)),
        )

    def _following(self, options: dict[str, Any], behind: str | None = None) -> str | None:
        """Return the turn and what comes next, when the conversation goes on, from the prompt's end.

        With `behind`, the tail of the turn when it is last, from where that begins. None where the template refuses.
        """
        reply = {"role": "user", "content": _content(_MARK, self._form, calls=False)}
        if self._calls:
            first = self._message["tool_calls"][0]
            identity = first.get("id") if isinstance(first, dict) else None
            reply = {**reply, "role": "tool", **({"tool_call_id": identity} if identity else {})}
        plain = {key: value for key, value in self._message.items() if key != self._form.reasoning}
        try:
            prompt = self._template.render(self._before, self._row, options, prompt=True)
            going_on = self._template.render([*self._before, plain, self._after or reply], self._row, options)
            if behind is None:
                return _behind_prompt(going_on, prompt)
            ended = self._template.render([*self._before, plain], self._row, options)
        except RefusedError:
            return None
        if not ended.endswith(behind):
            return None
        head = ended[: len(ended) - len(behind)]
        return going_on.removeprefix(head) if going_on.startswith(head) else None

    def _closes_a_call(self, token: str, options: dict[str, Any]) -> bool:
        """Return whether the template writes a token once for each call, so that it is not the turn's end."""
        twice = {**self._message, "tool_calls": [*self._message["tool_calls"], self._message["tool_calls"][-1]]}
        try:
            once, more = (
                self._template.render([*self._before, message], self._row, options).count(token)
                for message in (self._message, twice)
            )
        except RefusedError:
            return False
        return more > once


def _in_form(messages: Chat, form: _Form) -> Chat:
    ids: dict[str, str] = {}
    return [_message(message, form, ids) for message in messages]


def _message(message: dict[str, Any], form: _Form, ids: dict[str, str]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    written = {**message, "content": _content(message["content"], form, calls=bool(calls))}
    if REASONING in written:
        written[form.reasoning] = written.pop(REASONING)
    if calls:
        written["tool_calls"] = [_call(call, form, ids) for call in calls]
    if form.short_ids and "tool_call_id" in written:
        written["tool_call_id"] = _short_id(written["tool_call_id"], ids)
    return written


def _content(text: str, form: _Form, *, calls: bool) -> Any:
    if form.parts:
        return [{"type": "text", "text": text}]
    return None if form.null_content and calls and not text else text


def _call(call: Any, form: _Form, ids: dict[str, str]) -> Any:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        return call
    call = {"type": "function", **call}
    if form.short_ids:
        call["id"] = _short_id(call.get("id", f"call {len(ids)}"), ids)
    arguments = function["arguments"]
    if not form.text_arguments or isinstance(arguments, str):
        return {**call, "function": function}
    text = arguments.text if isinstance(arguments, CallArguments) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}


def _short_id(identity: Any, ids: dict[str, str]) -> str:
    """Return an id of nine letters, the same for the call and its answer."""
    name = str(identity)
    if _ID.fullmatch(name):
        return name
    letters = string.ascii_letters + string.digits
    return ids.setdefault(name, "call" + "".join(letters[len(ids) // 62**place % 62] for place in range(4, -1, -1)))


def _dicts(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [call for call in message["tool_calls"] if isinstance(call, dict)]


def _function(call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    return function if isinstance(function, dict) else {}


def _has_call(text: str, call: Any) -> bool:
    """Return whether a text has the call's name and then its arguments, as JSON or as plain values."""
    function = _function(call)
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name or name not in text:
        return False
    if isinstance(arguments, str):  # no JSON: quoted, it would be another text than the model wrote
        return arguments in text and (not arguments or json.dumps(arguments) not in text)
    is_python = isinstance(arguments, dict | list) and arguments and str(arguments) in text
    if is_python and str(arguments) != json.dumps(arguments, ensure_ascii=False):
        return False
    quoted = json.dumps(json.dumps(arguments, ensure_ascii=False), ensure_ascii=False)
    return quoted not in text and all(_has_value(text, value) for value in _leaves(arguments))


def _marked(value: Any) -> tuple[Any, str] | None:
    """Return a call's arguments with a mark at the end of the last value, and that mark; None where there is no value.

    A number stands in place of what is not text.
    """
    if isinstance(value, str):
        return value + _MARK, _MARK
    if not isinstance(value, dict | list):
        return _NUMBER_MARK, str(_NUMBER_MARK)
    if not value:
        return None
    last = next(reversed(value)) if isinstance(value, dict) else -1
    marked = _marked(value[last])
    if marked is None:
        return None
    if isinstance(value, dict):
        return {**value, last: marked[0]}, marked[1]
    return [*value[:-1], marked[0]], marked[1]


def _call_words(call: Any) -> list[str]:
    function = _function(call)
    name, arguments = function.get("name"), function.get("arguments")
    leaves = [arguments] if isinstance(arguments, str) else _leaves(arguments)
    return [word for value in (name, *leaves) for word in _forms_of(value) if word]


def _closed(prompt: str) -> re.Match[str] | None:
    """Return where a prompt closes thoughts at its end."""
    return _CLOSED.search(prompt, max(0, len(prompt) - _TAIL))


def _behind_prompt(text: str, prompt: str) -> str | None:
    """Return what follows a prompt in a text, which may not have the block of no thoughts at its end; None where none.

    Some templates write such a block in generation prompts only.
    """
    if text.startswith(prompt):
        return text.removeprefix(prompt)
    block = _closed(prompt)
    return _without_block(text[block.start() :]) if block and text.startswith(prompt[: block.start()]) else None


def _without_block(text: str) -> str:
    """Return a text without the empty thoughts that it may begin with."""
    return _NO_THOUGHTS.sub("", text, count=1) if _NO_THOUGHTS.match(text) else text


def _closing(opened: str, mark: str, silent: str) -> str:
    """Return how thoughts are closed.

    Args:
        opened: What opens them, at the prompt's end.
        mark: The mark that closes them.
        silent: What the template writes in place of that, and behind it, for a turn without thoughts.
    """
    empty = _NO_THOUGHTS.match(silent)
    if empty and empty[0].strip().endswith(mark):
        return empty[0].removeprefix(opened).removeprefix(opened.rstrip())
    return f"\n{mark}\n\n" if opened.endswith("\n") else mark


def _opens_thoughts(message: dict[str, Any]) -> bool:
    """Return whether a content is thoughts as the model wrote them, which nothing closes."""
    content = message["content"]
    return REASONING not in message and content.lstrip().startswith("<think>") and "</think>" not in content


def _has_raw_thoughts(content: str) -> bool:
    """Return whether a content has thoughts as the model wrote them; an answer may speak of the mark, in quotes."""
    return "</think>" in content and (content.lstrip().startswith("<think>") or not _QUOTED_MARK.search(content))


def _texts(message: dict[str, Any]) -> Iterator[str]:
    """Yield the texts that a model wrote in a turn, but for the marks around its thoughts."""
    thoughts, _, answer = message["content"].rpartition("</think>")
    yield thoughts.lstrip().removeprefix("<think>")
    yield answer.lstrip().removeprefix("<think>")
    yield message.get(REASONING, "")
    for call in message.get("tool_calls") or ():
        function = _function(call)
        yield from (
            text for text in _leaves([function.get("name"), function.get("arguments")]) if isinstance(text, str)
        )


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in (str(key), *_leaves(item))]
    if isinstance(value, list):
        return [leaf for item in value for leaf in _leaves(item)]
    return [value]


def _forms_of(value: Any) -> list[str]:
    """Return how templates write a value: as JSON, escaped or not, as text, trimmed."""
    if isinstance(value, str):
        plain, escaped = (json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
        return [value, plain, escaped, value.strip()]
    return [json.dumps(value), str(value)]


def _has_value(text: str, value: Any) -> bool:
    return any(form in text for form in _forms_of(value))
