"""Rollouts whose texts contain escape sequences, markup, and names of local files."""

import os
import re
from pathlib import Path

import orjson
import pytest

from rollmill.config.command_line import parse_command, report_errors
from rollmill.corpus.corpus import read_corpus
from rollmill.jobs.curation.apply_filters import copy_images
from rollmill.jobs.curation.commands import run_command
from rollmill.jobs.curation.parameters import COMMANDS
from rollmill.terminal.escapes import visible
from tests.problems.conftest import make_png

EVIL = "p\x1b]0;owned\x07\u202e|`<script>x</script>\n\n# t [a](b) $x$ \u2028 **b**"


def hostile_message(role, text):
    return {"role": role, "content": text}


ROWS = [
    {
        "instance_id": f"{EVIL}{number // 2}",
        "sample_id": number % 2,
        "messages": [hostile_message("user", EVIL), hostile_message("assistant", f"{EVIL}{number}")],
        "reward": float(number % 2),
        "success": bool(number % 2),
        "exit_status": EVIL,
        "finish_reason": EVIL,
        "error": {"type": EVIL, "message": EVIL} if number == 3 else None,
        "model_calls": 1,
        "metadata": {EVIL: EVIL},
    }
    for number in range(6)
]


@pytest.fixture
def do(tmp_path, monkeypatch, capsys):
    """Runs a command on the rows: (exit status, output)."""
    monkeypatch.chdir(tmp_path)
    bad = [b'{"instance_id": ["\\u001b[2J\\u202e"], "reward": "\\u001b[2J"}', b"\x1b[2J no json"]
    document = {"metadata": {"model_name": EVIL, EVIL: EVIL}, "examples": ROWS}
    Path("raw.json").write_bytes(orjson.dumps(document))
    Path("rows.jsonl").write_bytes(b"\n".join([*map(orjson.dumps, ROWS), *bad]) + b"\n")

    def run(*argv):
        try:
            with report_errors("curate"):
                run_command(
                    parse_command(COMMANDS, [*argv, "--max_bad_share", "1"], prog="curate", description="", examples="")
                )
        except SystemExit as stop:
            return (stop.code, "".join(capsys.readouterr()))
        return (0, "".join(capsys.readouterr()))

    return run


COMMAND_LINES = [
    ["analyze"],
    ["quality_report", "--output", "out.html"],
    ["export_sft", "--output", "out.jsonl"],
    ["export_preferences", "--output", "out.jsonl"],
    ["export_trajectory", "--output", "out.json"],
    ["filter_data", "--output", "out.jsonl", "--min_reward", "0.5"],
    ["show_example"],
    ["show_example", "--html", "out.html"],
    ["overview", "--output", "out.png"],
    ["curves", "--output", "out.png"],
    ["health"],
]


@pytest.mark.parametrize("data", ["raw.json", "rows.jsonl"])
@pytest.mark.parametrize("command", COMMAND_LINES, ids=" ".join)
def test_hidden_characters_are_escaped_everywhere(do, tmp_path, data, command):
    code, printed = do(command[0], "--input", data, *command[1:])
    assert code == 0
    assert visible(printed) == printed
    for path in [*tmp_path.glob("*.html"), *tmp_path.glob("*.md")]:
        text = path.read_text()
        assert visible(text) == text
        assert "<script>x" not in text.partition("</head>")[2]


def test_a_card_shows_names_as_text(do, tmp_path):
    do("export_sft", "--input", "raw.json", "--output", "out.jsonl")
    card = (tmp_path / "README.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("- model: ")]
    assert line == (
        r"- model: p\\x1b\]0;owned\\x07\\u202e\|\`&lt;script&gt;x&lt;/script&gt; \# t \[a\](b) \$x\$ \\u2028 \*\*b\*\*"
    )


def test_quarantine_prints_one_line_per_row(do):
    code, printed = do("analyze", "--input", "rows.jsonl")
    assert code == 0
    rows = [line for line in printed.splitlines() if re.match(r"\s+rows\.jsonl: row \d", line)]
    assert len(rows) == 2


def test_the_name_of_a_file_is_shown_escaped(do, tmp_path):
    name = "a\x1b[2J\u202e.jsonl"
    (tmp_path / name).write_bytes((tmp_path / "rows.jsonl").read_bytes())
    for command in (["analyze"], ["export_sft", "--output", "out.jsonl"], ["quality_report", "--output", "out.html"]):
        code, printed = do(command[0], "--input", name, *command[1:])
        assert code == 0
        assert visible(printed) == printed
    assert "a\\x1b[2J" in printed or "a\\x1b[2J" in (tmp_path / "out.html").read_text()


def test_a_mistake_with_such_a_name_is_one_line(do):
    code, printed = do("analyze", "--input", "no\x1b[2J\u202ewhere\nelse")
    assert code == 1
    assert visible(printed) == printed


def images_carried(folder: Path, images: Path) -> list[str]:
    class OneRun:
        class File:
            run = folder

        files = (File,)

    target = images.parent.parent / "out"
    copy_images(OneRun, target)
    return sorted(path.name for path in (target / "images").iterdir()) if (target / "images").exists() else []


@pytest.mark.parametrize("linked", [True, False])
def test_only_images_of_the_run_are_copied(tmp_path, monkeypatch, linked):
    images = tmp_path / "run" / "images"
    images.mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (images / "a.png").write_bytes(make_png(1))
    (images / "link.png").symlink_to(tmp_path / "secret.txt")
    (images / "folder.png").mkdir()
    os.mkfifo(images / "pipe.png")
    if not linked:

        def refuse(*_):
            raise OSError("no links here")

        monkeypatch.setattr(os, "link", refuse)
    assert images_carried(tmp_path / "run", images) == ["a.png"]
    assert (tmp_path / "out" / "images" / "a.png").read_bytes() == make_png(1)


def test_symlinked_image_folder_is_not_followed(tmp_path, caplog):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(make_png(1))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "images").symlink_to(tmp_path / "pictures")
    assert images_carried(tmp_path / "run", tmp_path / "run" / "images") == []
    assert "is a link" in caplog.text


def test_records_that_name_files_are_read_without_opening_them(tmp_path):
    part = {"type": "image", "image": "/dev/zero"}
    row = {**ROWS[0], "messages": [hostile_message("user", [part]), hostile_message("assistant", "x")]}
    (tmp_path / "rows.jsonl").write_bytes(orjson.dumps(row))
    corpus = read_corpus([str(tmp_path / "rows.jsonl")])
    assert corpus.table.height == 1
