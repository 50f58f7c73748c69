"""One trajectory in a terminal."""

import io
import json
import re
from unittest.mock import Mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from rollmill.reports.viewing.terminal import show_example

FACTS = {
    "row": 4,
    "instance_id": "p1",
    "sample_id": 3,
    "reward": 0.25,
    "success": False,
    "claimed_success": True,
    "status": "ok",
    "error_type": None,
    "speedup": 1.5,
    "exit_status": "Submitted",
    "model_calls": 12,
    "messages": 4,
    "tokens": None,
    "prompt_tokens": 1200,
    "completion_tokens": 34,
}
RECORD = {
    "problem_statement": "Make it fast.",
    "messages": [
        {"role": "system", "content": "Be [red]good[/red] :smile:"},
        {"role": "assistant", "content": "I look:\n```bash\nls -la | grep x\n```"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "image": "images/a.png"}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "bash", "arguments": '{"command": "make\\nrun"}'}}],
        },
    ],
    "git_diff": "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n",
    "evaluation_info": {"response": {"json": {"success": False, "phase": "build", "reason": "Build failed"}}},
    "verdict": {"answer": "3"},
    "error": None,
}


def shown(record=None, *, facts=None, width=80, complete=False, **console):
    file = io.StringIO()
    target = Console(file=file, width=width, **console)
    record = RECORD if record is None else record
    show_example(target, {**FACTS, **(facts or {})}, json.dumps(record).encode(), full=complete)
    return file.getvalue()


def rule(words, width=80):
    return f"{words} {'─' * (width - len(words) - 1)}"


def test_a_trajectory_as_it_is_read_in_a_pipe():
    assert shown() == "\n".join(
        [
            "",
            rule("p1 · sample 3"),
            "outcome         unsuccessful",
            "                Claimed success, but its evaluation failed.",
            "reward          0.25",
            "speedup         1.5x",
            "exit status     Submitted",
            "model calls     12",
            "messages        4",
            "tokens          1,200 prompt, 34 completion",
            "",
            rule("problem statement"),
            "Make it fast.",
            "",
            rule("1 system"),
            "Be [red]good[/red] :smile:",
            "",
            rule("2 assistant"),
            "I look:",
            "[bash]",
            "    ls -la | grep x",
            "",
            rule("3 user"),
            "a",
            "[image: images/a.png]",
            "",
            rule("4 assistant"),
            "bash:",
            "    make",
            "    run",
            "",
            rule("git diff"),
            "--- a/x",
            "+++ b/x",
            "@@ -1 +1 @@",
            "-old",
            "+new",
            "",
            rule("evaluation"),
            "success         false",
            "phase           build",
            "reason          Build failed",
            "",
            rule("verdict"),
            "answer          3",
            "",
        ]
    )


@pytest.mark.parametrize(
    ("facts", "record", "line"),
    [
        ({"success": True}, {}, "outcome         success"),
        ({"success": None, "claimed_success": None}, {}, "outcome         not recorded"),
        ({"status": "failed", "error_type": "timeout"}, {}, "outcome         failed (timeout)"),
        ({"status": "unparseable"}, {}, "                No answer was found in it."),
        ({"tokens": 5000, "prompt_tokens": None}, {}, "tokens          5,000 (34 completion)"),
        ({}, {"error": {"type": "timeout", "message": "late"}}, "error           timeout: late"),
        ({}, {}, "No messages were recorded."),
        ({}, {"messages": [{"role": "user", "content": ""}]}, "(empty)"),
        ({}, {"messages": [{"role": "exit", "content": "x"}]}, rule("1 exit, bookkeeping")),
        ({}, {"messages": [{"role": "tool", "name": "sh", "content": "x"}]}, rule("1 tool (sh)")),
    ],
)
def test_ending_of_a_rollout_is_shown(facts, record, line):
    assert line in shown(record, facts=facts).split("\n")


def test_colours_follow_the_console():
    coloured = shown(force_terminal=True, color_system="truecolor")
    assert "\x1b[32m+new" in coloured
    assert "\x1b[31m-old" in coloured
    assert "\x1b[1;31munsuccessful" in coloured
    assert "\x1b" not in shown(force_terminal=False)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == shown()


def test_text_from_outside_cannot_drive_the_terminal():
    evil = "\x1b]0;owned\x07\x1b[2J\x9b1A\r\u202e"
    message = {
        "role": evil,
        "name": evil,
        "content": f"{evil}\n```{evil}\n{evil}\n```",
        "tool_calls": [{"function": {"name": evil, "arguments": json.dumps({evil: evil})}}],
    }
    record = {
        "messages": [message],
        "git_diff": evil,
        "error": evil,
        "problem_statement": evil,
        "evaluation_info": {evil: evil},
        "verdict": {evil: f"{evil}\n"},
    }
    facts = dict.fromkeys(("instance_id", "exit_status", "finish_reason", "error_type"), evil)
    text = shown(record, facts={**facts, "status": "failed"}, width=200)
    assert not set(text) & set("\x1b\x07\x9b\r\u202e")
    assert text.count("\\x1b]0;owned\\x07\\x1b[2J\\x9b1A\\r\\u202e") >= 14


def test_long_message_is_cut_in_the_middle_by_default():
    text = "".join(f"line {number:05}\n" for number in range(2000))
    record = {"messages": [{"role": "user", "content": text}]}
    cut = shown(record)
    assert "line 00000" in cut
    assert "line 01999" in cut
    assert "line 01000" not in cut
    assert re.search(r"^\.\.\. 16,0\d\d characters left out; --whole shows all$", cut, re.MULTILINE)
    complete = shown(record, complete=True)
    assert complete.count("line 0") == 2000
    assert "left out" not in complete


def test_long_evaluation_log_is_cut_keeping_its_end():
    record = {"evaluation_info": {"build_output": "x" * 30_000 + "\nError 2"}}
    assert "  Error 2" in shown(record).split("\n")
    assert len(shown(record)) < 6_000
    assert shown(record, complete=True).count("x") >= 30_000


def test_limited_encoding_shows_escapes():
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding="ascii")
    record = {"messages": [{"role": "user", "content": "日 é"}]}
    show_example(Console(file=file, width=60), FACTS, json.dumps(record).encode())
    file.flush()
    assert b"\\u65e5 \\xe9" in buffer.getvalue()


def test_code_too_long_for_a_lexer_is_shown_plain(monkeypatch):
    syntax = Mock(side_effect=AssertionError("highlighted"))
    monkeypatch.setattr("rich.syntax.Syntax", syntax)
    code = "x = 1\n" * 5_000
    record = {"messages": [{"role": "user", "content": f"```python\n{code}```"}]}
    assert shown(record, complete=True).count("x = 1") == 5_000


@pytest.mark.parametrize(
    "language", ["bash", "mswea_bash_command", "python", "no-such-language", "Python title=x", "diff"]
)
def test_code_of_every_language_is_shown_whole(language):
    code = "if x:\n\ty = '[b]'  # " + "long " * 30
    text = shown({"messages": [{"role": "user", "content": f"```{language}\n{code}\n```"}]}, width=40)
    assert text.count("long") == 30
    assert "    if x:" in text
    assert "y = '[b]'" in text


MESSY = st.text(st.characters(), max_size=120)


@settings(max_examples=80)
@given(MESSY, MESSY, MESSY, st.integers(40, 130), st.booleans())
def test_any_text_fits_any_width_and_loses_nothing(words, code, name, width, complete):
    record = {
        "messages": [{"role": "user", "content": f"{words}\nENDWORDS\n```python\n{code}\n```"}],
        "git_diff": code,
        "error": words,
        "verdict": {name: words},
    }
    text = shown(record, facts={"instance_id": name, "exit_status": words}, width=width, complete=complete)
    assert "\x1b" not in text
    assert max(cell_len(line) for line in text.split("\n")) <= width
    printed = sorted(char for char in text if char.isalnum())
    for char in set(words + code):
        if char.isalnum():
            assert printed.count(char) >= words.count(char) + code.count(char)
