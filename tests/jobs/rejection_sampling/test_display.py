from pathlib import Path
from types import SimpleNamespace

from rollmill.jobs.rejection_sampling.display import print_outcomes

HOSTILE = "[/red] [bold]m[/bold] [link=http://evil]x[/link] \x1b[31m\x1b]0;owned\x07"


def outcome():
    return SimpleNamespace(
        name=HOSTILE,
        table=[{"run": HOSTILE, "success": "1"}],
        made=0,
        notes=[f"the server said {HOSTILE}"],
        health=["health: 1 finding", f"hollow_turns: {HOSTILE}"],
        files={"rollouts": Path(HOSTILE)},
        directory=Path("out/[m]"),
    )


def test_foreign_text_is_neither_markup_nor_an_escape_sequence(capsys):
    print_outcomes([outcome(), outcome()])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert printed.count("[/red] [bold]m[/bold] [link=http://evil]x[/link] \\x1b[31m\\x1b]0;owned\\x07") >= 6
    assert "out/comparison.txt" in printed
