"""Measure the time of each parser of untrusted text on difficult input: `python -m tests.hostile.parsers`.

Each text is parsed in a fork that the kernel ends after some seconds of CPU, where a parser whose time grows with the
square of 60,000 characters takes several times that. Writes a JSON object of what did not end, or ended in a traceback.
"""

import io
import json
import os
import resource
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

from jinja2 import TemplateError

from rollmill.agents.config import _SAYS_V1_TEXT
from rollmill.agents.templates import AgentTemplate
from rollmill.config.settings_file import SettingsFile
from rollmill.corpus.record_facts import _error_type
from rollmill.corpus.scan import Scan
from rollmill.environments.code.examples import example_tests
from rollmill.environments.code.subject import Subject, read_subject
from rollmill.environments.parsing import all_tagged, last_boxed, last_python, last_tagged
from rollmill.environments.search.index import _words
from rollmill.environments.search.scoring import normalized
from rollmill.environments.stateful import blocksworld, eight_queens, sudoku
from rollmill.errors import InputError
from rollmill.exports.card import _CONFIGS, _FRONT_MATTER, read_sections
from rollmill.exports.contents import is_blank
from rollmill.files.bounded_yaml import read_yaml
from rollmill.files.json_array import JsonArray
from rollmill.files.rows import parse_line
from rollmill.grading.patch import Change
from rollmill.grading.path_policy import refusal
from rollmill.grading.test_summary import summary
from rollmill.inference.client import RequestFailedError
from rollmill.inference.server_log import ServerLog
from rollmill.jobs.episodes.config_file import read_overlay
from rollmill.jobs.episodes.override_values import split_policy
from rollmill.jobs.improvement.held_out import _is_separate
from rollmill.jobs.training.rendered_text import _CLOSED, _NO_THOUGHTS, _OPENER
from rollmill.records import Problem
from rollmill.reports.viewing.blocks import message_blocks
from rollmill.reports.viewing.pages import embedded
from rollmill.terminal.escapes import visible
from rollmill.verifiers.answer_tag import answer_or_all, tagged_answer
from rollmill.verifiers.exact import ExactVerifier
from rollmill.verifiers.math_equality import _EXPONENT
from rollmill.verifiers.numeric import NumericVerifier

N = 60_000
LIMIT_S = 2
PROBLEM = Problem(instance_id="p", prompt="q", answer="1")

# fmt: off
REPEATED = [
    "a", " ", "\t", "\n", "1", "1.", "1 ", ".", "(", "[", "{", "}", "\"", "\\", "\\\"", "`", "~", "``` ", "$",
    "${", "$$", "{%", "{% ", "{{", "{#", "<", "<!--", "<answer>", "</answer>", "<answer></answer>", "<plan>",
    "\\boxed{", "\\boxed{}", "\\\\", "-", "---\n", "e", "1e", "+", ",", ",a", ",a=", "/", "a/", "one ",
    "Error", "Error: ", "a.", "<!-- rollmill:export {", "<!-- rollmill:export {} -->\n", "```python\n",
    "```\n", "configs:\n", "- a\n", ">>> ", ">>> x\n", " \n", "  >>>", "Traceback (most recent call last):\n",
    "inputs ", "inputs tokens ", "x" * 50 + "\n", "\x1b[", "\ud800", "\u202e", "\xe9", "\u0663", "a\u0301",
    "# ", "!", "&a ", "*a ", "? ", "a: ", "a:\n", "[,", "%", "\"k\":[],",
]
# fmt: on
MIXED = [
    "```" + " " * N + "`",
    "~" * N + "`",
    "1" * N + "x",
    "1" + " " * N + "x",
    "1." + "1" * N,
    "a" * N + "Error",
    "Error" + "a" * N,
    "a" * N + "Error:",
    '"' + " " * N + "x",
    '"' + "\\n" * N + '"',
    "<answer>" + " " * N,
    "<answer>" + "9" * N + "</answer>",
    "<answer>1e" + "9" * N + "</answer>",
    "<answer>0." + "0" * N + "1</answer>",
    "{%" + " " * N + "x",
    "<!-- rollmill:export {" + "}" * N + " -->\n" + "\n" * N,
    ("<!-- rollmill:export {} -->" + "\n") * 3000 + "\n<!-- rollmill:end -->",
    "---\n" + "configs:\n- " * 10_000,
    ">>> f(" + "(" * N + "\n1\n",
    ">>> " + "-" * N + "1\n1\n",
    ">>> f(1)\n" + "[" * N + "\n",
    ">>> f(1)\n" + "1," * N + "\n",
    "def f():\n" + " x\n" * 1000 + "(" * N,
    "\\boxed{" * (N // 14) + "x" + "}" * (N // 14),
    "[" * N + "]" * N,
    '{"a":' * 20_000 + "1" + "}" * 20_000,
    '{"instance_id": "a", "x": ' + "[" * N + "}",
    "x: " + "${a}" * 20_000,
    "x: 1" + ":1" * N,
    "x: 0x" + "f" * N,
]


def _examples(text: str) -> None:
    example_tests(Subject(text, "", ("f",), "", None))


def _subject(text: str) -> None:
    for fields in ({"test": text}, {"test": "assert f(1)", "test_imports": [text]}):
        try:
            read_subject(Problem(instance_id="p", prompt=text, answer=text, fields=fields))
        except ValueError:
            continue


def _log(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = ServerLog(Path(folder) / "log")
        log.path.write_text(text, "utf-8", "replace")
        log.death(1, "before it was ready")


def _array(text: str) -> None:
    for document in (text, f'{{{text}"data": [1]}}', '{"a": "' + text + '", "data": [1]}'):
        try:
            list(JsonArray(io.BytesIO(document.encode("utf-8", "replace"))))
        except ValueError:
            continue


def _scan(text: str) -> None:
    scan = Scan()
    for line in (text, json.dumps({"instance_id": text, "messages": [{"role": text, "content": text}]})):
        scan.add(1, line.encode("utf-8", "replace"), None)


def _paths(text: str) -> None:
    path = text[:1000].replace("\0", "")
    for pattern in ("**/" * 20 + "x", "*a" * 30 + "b", "**" * 20 + "x", "*", "src/**/*.py", "a*" * 20, path[:250]):
        refusal([Change("M", path, "100644")], [pattern])
    refusal([Change("M", "a" * 1000, "100644"), Change("M", "a/" * 500, "100644")], [path[:250]])


def _settings(text: str) -> None:
    for values in ({"model_name": text}, {f"x{n}": f"${{x{n + 1}}}" * 9 for n in range(60)} | {"x60": ""}):
        read_overlay(SettingsFile("f", values, {}), ())


def _template(text: str) -> None:
    AgentTemplate(text).render()


def _question(text: str) -> None:
    _is_separate(text[: N // 2] + "b", text)
    _is_separate(text[: N // 100], text)


def _actions(text: str) -> None:
    for pattern in (blocksworld._ACTION, eight_queens._ACTION, sudoku._WRITE, sudoku._CLEAR):
        pattern.fullmatch(text)


PARSERS: dict[str, Callable[[str], object]] = {
    "agents.action style": lambda text: _SAYS_V1_TEXT.search(text),
    "inference.too_long": lambda text: RequestFailedError("http_400", text, 1).too_long,
    "agents.templates": _template,
    "code.examples": _examples,
    "code.subject": _subject,
    "corpus.error kind": _error_type,
    "corpus.scan": _scan,
    "environments.parsing": lambda text: (
        last_boxed(text), last_python(text), last_tagged(text, "a", "plan"), all_tagged(text, "plan")
    ),
    "episodes.config_file": _settings,
    "episodes.policy": split_policy,
    "exports.card": lambda text: list(read_sections(text)),
    "exports.front matter": lambda text: _CONFIGS.sub("", match[1]) if (match := _FRONT_MATTER.match(text)) else None,
    "exports.is_blank": lambda text: is_blank(json.dumps(text).encode()),
    "files.json_array": _array,
    "files.rows": lambda text: parse_line(1, text.encode("utf-8", "replace")),
    "files.yaml": read_yaml,
    "grading.allowed": _paths,
    "grading.passing": summary,
    "held_out": _question,
    "search.scoring": normalized,
    "search.words": _words,
    "server_log": _log,
    "stateful.actions": _actions,
    "training.opener": lambda text: (_OPENER.search(text), _CLOSED.search(text), _NO_THOUGHTS.match(text)),
    "verifiers.answer": lambda text: (tagged_answer(text), answer_or_all(text)),
    "verifiers.exact": lambda text: ExactVerifier().verify(PROBLEM, text),
    "verifiers.exponent": lambda text: _EXPONENT.fullmatch(text),
    "verifiers.numeric": lambda text: NumericVerifier().verify(PROBLEM, f"<answer>{text}</answer>"),
    "viewing.blocks": lambda text: message_blocks("user", text, [{"function": {"arguments": text}}], text),
    "viewing.escapes": lambda text: visible(text),
    "viewing.pages": lambda text: embedded(visible(text)),
}  # fmt: skip
_REFUSALS = (InputError, ValueError, TemplateError)
"""What a parser may say of a text."""


def parse_all(name: str) -> None:
    """Parses every text by one parser, in this process; what it is at is on stderr."""
    for text in [*((text_part * N)[:N] for text_part in REPEATED), *MIXED]:
        began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        resource.setrlimit(resource.RLIMIT_CPU, (int(began) + LIMIT_S + 1, -1))
        try:
            PARSERS[name](text)
        except _REFUSALS as error:
            if isinstance(error, InputError) and len(str(error)) > 2000:
                sys.stderr.write(f"{name}: a message of {len(str(error))} characters on {text[:30]!r}\n")
                os._exit(1)
        except BaseException:
            sys.stderr.write(f"{name}, on {text[:30]!r}:\n{traceback.format_exc()[-600:]}\n")
            os._exit(1)
        if resource.getrusage(resource.RUSAGE_SELF).ru_utime - began > LIMIT_S / 5:
            sys.stderr.write(f"{name}: slow on {text[:30]!r}\n")


def main() -> None:
    failed = {}
    for name in sys.argv[1:] or PARSERS:
        child = os.fork()
        if not child:
            parse_all(name)
            os._exit(0)
        _, status, used = os.wait4(child, 0)
        sys.stderr.write(f"{name}: {used.ru_utime:.1f} s\n")
        if status:
            failed[name] = "killed" if os.WIFSIGNALED(status) else "a traceback"
    json.dump(failed, sys.stdout)


if __name__ == "__main__":
    main()
