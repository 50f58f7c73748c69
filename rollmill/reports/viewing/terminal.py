"""One trajectory as text for a terminal of any width, with and without colours, and for a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.rule import Rule
from rich.text import Text

from rollmill.reports.viewing.blocks import Block, shorten
from rollmill.reports.viewing.trajectory import (
    DENIED,
    NO_MESSAGES,
    Findings,
    ShownMessage,
    is_denied,
    read_trajectory,
    state,
)
from rollmill.terminal.escapes import visible

if TYPE_CHECKING:
    from rich.console import Console

_LONGEST_MESSAGE = 6_000
_LONGEST_DIFF = 12_000
_LONGEST_OUTPUT = 1_500
_LONGEST_HIGHLIGHTED = 20_000  # the lexers of some languages are slow
_KEY_WIDTH = 16

# Styles are colours: a console made for log lines may not know rich's style names.
_ROLE_STYLES = {"system": "magenta", "developer": "magenta", "user": "blue", "assistant": "green"}
_STATE_STYLES = {"success": "bold green", "unsuccessful": "bold red", "unjudged": "bold", "failed": "bold yellow"}
_SHELLS = frozenset({"sh", "zsh", "shell", "console", "terminal", "mswea_bash_command"})


def show_example(console: Console, facts: dict[str, Any], record: bytes, *, full: bool = False) -> None:
    """Print one trajectory: its facts, messages, diff, evaluation and verdict.

    Text of the record is never taken for markup, its control characters become escapes, and no record raises.

    Args:
        console: where to print.
        facts: the rollout's row of the table (see `rollmill.corpus.table`).
        record: its JSON object.
        full: print all text; else very long texts are cut in the middle, with the number of characters left out.
    """
    sheet = _Sheet(console, full)
    trajectory = read_trajectory(record)
    sheet.title(f"{facts.get('instance_id')} · sample {facts.get('sample_id')}")
    _show_facts(sheet, facts)
    if trajectory.error:
        sheet.pair("error", trajectory.error, "red", _LONGEST_OUTPUT)
    if trajectory.unreadable:
        sheet.write(trajectory.unreadable, "yellow")
    if trajectory.problem_statement:
        sheet.title("problem statement", "cyan")
        sheet.blocks([Block("text", trajectory.problem_statement)], _LONGEST_MESSAGE)
    for number, turn in enumerate(trajectory.turns, start=1):
        _show_turn(sheet, number, turn)
    if not trajectory.turns:
        sheet.title("messages", "white")
        sheet.write(NO_MESSAGES, "yellow")
    if trajectory.git_diff:
        sheet.title("git diff", "cyan")
        sheet.blocks([Block("diff", trajectory.git_diff)], _LONGEST_DIFF)
    _show_findings(sheet, "evaluation", trajectory.evaluation)
    _show_findings(sheet, "verdict", trajectory.verdict)


def _show_facts(sheet: _Sheet, facts: dict[str, Any]) -> None:
    outcome = state(facts)
    labels = {"unjudged": "not recorded", "failed": f"failed ({facts.get('error_type') or 'no kind given'})"}
    sheet.pair("outcome", visible(labels.get(outcome, outcome)), _STATE_STYLES[outcome])
    if is_denied(facts):
        sheet.pair("", DENIED, "bold red")
    if facts.get("status") == "unparseable":
        sheet.pair("", "No answer was found in it.", "yellow")
    shown = {
        "reward": _number(facts.get("reward")),
        "speedup": f"{_number(facts['speedup'])}x" if facts.get("speedup") is not None else "",
        "exit status": facts.get("exit_status"),
        "finish reason": facts.get("finish_reason"),
        "model calls": _number(facts.get("model_calls")),
        "messages": _number(facts.get("messages")),
        "tokens": _tokens(facts),
    }
    for name, value in shown.items():
        if value:
            sheet.pair(name, visible(str(value)))


def _show_turn(sheet: _Sheet, number: int, turn: ShownMessage) -> None:
    named = f" ({turn.name})" if turn.name else ""
    note = ", bookkeeping" if turn.bookkeeping else ""
    style = _ROLE_STYLES.get(turn.role, "white" if turn.bookkeeping else "yellow")
    sheet.title(f"{number} {turn.role}{named}{note}", style)
    if turn.blocks:
        sheet.blocks(turn.blocks, _LONGEST_MESSAGE)
    else:
        sheet.write("(empty)", "dim")


def _show_findings(sheet: _Sheet, title: str, findings: Findings) -> None:
    if not findings:
        return
    sheet.title(title, "cyan")
    for name, value in findings.facts:
        failed = name == "error" or (name == "success" and value == "false")
        sheet.pair(name, value, "red" if failed else "")
    for name, value in findings.outputs:
        sheet.write(f"{name}:", "bold")
        sheet.blocks([Block("output", value)], _LONGEST_OUTPUT, indent=2)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _tokens(facts: dict[str, Any]) -> str:
    parts = {name: _number(facts.get(f"{name}_tokens")) for name in ("prompt", "completion")}
    detail = ", ".join(f"{value} {name}" for name, value in parts.items() if value)
    total = _number(facts.get("tokens"))
    return f"{total} ({detail})" if total and detail else total or detail


class _Sheet:
    """Writes lines that are wrapped before they reach the console, for any width and any text."""

    def __init__(self, console: Console, full: bool) -> None:
        self.console = console
        self.full = full

    def title(self, text: str, style: str = "bold") -> None:
        """Write a rule with a title."""
        words = " ".join(visible(text).split())
        room = max(self.console.width - 8, 8)
        if Text(words).cell_len > room:
            self.console.print()
            self.write(words, "bold" if style == "bold" else f"bold {style}")
            self.console.print(Rule(style=style))
        else:
            self.console.print()
            self.console.print(Rule(self._text(words, "bold"), style=style, align="left"))

    def pair(self, name: str, value: str, style: str = "", longest: int = 2_000) -> None:
        """Write a name, and its value beside it.

        Args:
            name: in the left column.
            value: wrapped in the right column.
            style: of the value.
            longest: characters of the value that are kept.
        """
        kept = [Block("text", value)] if self.full else shorten([Block("text", value)], longest)
        name = " ".join(name.split())
        padding = _KEY_WIDTH - self._text(name).cell_len
        if padding < 1:
            self.write(name, "dim")
            name, padding = "", _KEY_WIDTH
        lines: list[Text] = []
        for block in kept:
            left_out = block.kind == "left_out"
            text = self._text(_left_out(block) if left_out else block.text, "bold yellow" if left_out else style)
            lines += self._wrap(text, _KEY_WIDTH)
        for index, line in enumerate(lines):
            start = self._text(name + " " * padding if index == 0 else " " * _KEY_WIDTH, "dim")
            self._print(Text.assemble(start, line))

    def write(self, text: str, style: str = "", indent: int = 0) -> None:
        """Write text, wrapped."""
        self._lines(self._text(text, style), indent)

    def blocks(self, blocks: Sequence[Block], longest: int, indent: int = 0) -> None:
        """Write blocks below one another, of at most `longest` characters in all."""
        for block in blocks if self.full else shorten(blocks, longest):
            match block.kind:
                case "left_out":
                    self.write(_left_out(block), "bold yellow", indent)
                case "code":
                    if block.label:
                        self.write(f"[{block.label}]", "dim", indent)
                    self._lines(self._code(block), indent + 4)
                case "diff":
                    self._lines(self._code(block._replace(label="diff")), indent)
                case "command" | "call":
                    self.write(f"{block.label or 'tool call'}:", "bold cyan", indent)
                    self._lines(self._code(block) if block.kind == "command" else self._text(block.text), indent + 4)
                case "reasoning":
                    self.write("reasoning:", "dim", indent)
                    self.write(block.text, "italic dim", indent + 2)
                case "image":
                    self.write(block.text, "bold magenta", indent)
                case _:
                    self.write(block.text, "", indent)

    def _code(self, block: Block) -> Text:
        code = block.text.expandtabs(8)
        language = "bash" if block.kind == "command" else block.label.split(" ")[0].lower()
        if language in {"diff", "patch"}:
            return Text("\n").join(self._text(line, _diff_style(line)) for line in code.split("\n"))
        if not language or len(code) > _LONGEST_HIGHLIGHTED:
            return self._text(code)
        from rich.syntax import Syntax

        lexer = "bash" if language in _SHELLS else language
        syntax = Syntax("", lexer, theme="ansi_dark", background_color="default", word_wrap=True)
        text = syntax.highlight(self._text(code).plain)
        text.rstrip()
        return text

    def _lines(self, text: Text, indent: int) -> None:
        for line in self._wrap(text, indent):
            self._print(Text.assemble(" " * indent, line))

    def _wrap(self, text: Text, indent: int) -> list[Text]:
        return list(text.wrap(self.console, max(self.console.width - indent, 8), overflow="fold", tab_size=8))

    def _print(self, line: Text) -> None:
        line.rstrip()
        self.console.print(line, soft_wrap=True)

    def _text(self, text: str, style: str = "") -> Text:
        encoding = self.console.encoding
        return Text(text.encode(encoding, "backslashreplace").decode(encoding), style=style)


def _left_out(block: Block) -> str:
    return f"... {block.text} characters left out; --whole shows all"


def _diff_style(line: str) -> str:
    if line.startswith(("diff ", "index ", "+++", "---")):
        return "bold"
    return {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
