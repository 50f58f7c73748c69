"""`rollmill completion`: real shells complete the flags and choices of the parsers."""

from __future__ import annotations

import argparse
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.completion import completion_parser
from tests.deployments.commands import ROLLMILL, calls
from tests.documentation.pages import ROOT, commands

SHELLS = ("bash", "zsh", "fish")
needs_shell = {
    shell: pytest.mark.skipif(shutil.which(shell) is None, reason=f"no {shell} here: see requirements/debian-tests.txt")
    for shell in SHELLS
}
CASES = [
    ("samp", "sample"),
    ("sample --no_can", "sample --no_canary"),
    ("sample --verifier reas", "sample --verifier reasoning_gym"),
    ("sample --retry trunc", "sample --retry truncated"),
    ("sample --few_shot exam", "sample --few_shot examples.jsonl"),
    ("curate export_pref", "curate export_preferences"),
    ("curate export_sft --format prompt", "curate export_sft --format prompt_completion"),
    ("services sandbox --sandbox bub", "services sandbox --sandbox bubblewrap"),
    ("optimal-sampling analyze", "optimal-sampling analyze_diagnostics"),
    ("up --gpu", "up --gpu_runs"),
    ("completion fi", "completion fish"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a home directory in which the documentation's installation commands were run."""
    folder = tmp_path_factory.mktemp("home")
    for line in commands(ROOT / "docs/reference/rollmill.md"):
        subprocess.run(["bash", "-ec", line], env=environment(folder), cwd=folder, check=True)
    (folder / ".zshrc").write_text("fpath=(~/.zfunc $fpath)\nautoload -Uz compinit && compinit -u\n")
    (folder / "examples.jsonl").touch()
    return folder


def environment(home: Path) -> dict[str, str]:
    path = f"{ROLLMILL.parent}{os.pathsep}{os.environ['PATH']}"
    return dict(os.environ, HOME=str(home), PATH=path, TERM="dumb", LC_ALL="C.UTF-8")


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every parser of the completion, with its command words."""
    remaining = [("", completion_parser())]
    while remaining:
        words, parser = remaining.pop()
        yield words, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                remaining += [(f"{words} {name}".strip(), child) for name, child in action.choices.items()]


@pytest.mark.parametrize("words", [" ".join(call.words) for call in calls()])
def test_flags_are_those_of_the_help(words: str, help_texts: dict[str, tuple[str, str]]) -> None:
    parser = dict(parsers())[words]
    listed = re.findall(r"^  (--\w+)", help_texts[words][0], re.MULTILINE)
    options = [
        option for action in parser._actions for option in action.option_strings if action.help != argparse.SUPPRESS
    ]
    assert sorted(listed) == sorted(set(options) - {"-h", "--help"})


def complete_by_keys(shell: str, lines: list[str], home: Path) -> list[str]:
    """Type lines with a Tab at the end of each into an interactive shell; return the completed lines."""
    arguments = {"bash": ["bash", "-i"], "zsh": ["zsh", "-d", "-i"]}[shell]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(home)
        os.execvpe(arguments[0], arguments, environment(home))
    typed = [f"rollmill {line}\t\n" for line in lines]
    output = ""
    try:
        # The quotes inside let the terminal's echo of this line differ from what it prints.
        os.write(terminal, b"rollmill() { printf 'com''pleted <%s>\\n' \"$*\"; }; echo re''ady\n")
        read_until(terminal, "ready")
        for line in typed:
            os.write(terminal, line.encode())
            output += read_until(terminal, ">\r\n")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
    return [match.strip() for match in re.findall(r"completed <(.*)>\r\n", output)]


def read_until(terminal: int, text: str) -> str:
    """Read a terminal's output until it contains a text."""
    output, deadline = "", time.monotonic() + 60
    while text not in output:
        assert time.monotonic() < deadline, output
        if select.select([terminal], [], [], 1.0)[0]:
            output += os.read(terminal, 65536).decode(errors="replace")
    return output


@pytest.mark.parametrize("shell", [pytest.param(shell, marks=needs_shell[shell]) for shell in ("bash", "zsh")])
def test_tab_completes(shell: str, home: Path) -> None:
    lines = [line for line, _ in CASES]
    assert complete_by_keys(shell, lines, home) == [completed for _, completed in CASES]


@needs_shell["fish"]
def test_fish_completes(home: Path) -> None:
    code = "\n".join(f"complete -C 'rollmill {line}'; echo END" for line, _ in CASES)
    done = subprocess.run(
        ["fish", "-c", code], env=environment(home), cwd=home, capture_output=True, text=True, timeout=120, check=True
    )
    answers = [answer.splitlines() for answer in done.stdout.split("END\n")[:-1]]
    words = [[candidate.partition("\t")[0] for candidate in answer] for answer in answers]
    assert words == [[completed.split()[-1]] for _, completed in CASES], done.stderr


@needs_shell["bash"]
def test_bash_lists_the_choices_and_folders(home: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    code = """
    . ~/.rollmill.bash
    candidates() { COMP_WORDS=(rollmill "$@"); COMP_CWORD=$#; _shtab_rollmill; printf '%s\\n' "${COMPREPLY[*]}"; }
    complete -p rollmill
    candidates ''; candidates sample --log_dir ''; candidates train --serve ''; candidates sample --seed ''
    """
    done = subprocess.run(
        ["bash", "-c", code], env=environment(home), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "complete -o bashdefault -F _shtab_rollmill rollmill",
        "sample agents episodes optimal-sampling curate train improve services up down completion",
        "folder",
        "auto adapter merged",
        "",
    ]


def test_script_works_on_other_machines(home: Path) -> None:
    script = (home / ".rollmill.bash").read_text()
    assert str(ROOT) not in script
    assert sys.executable not in script
