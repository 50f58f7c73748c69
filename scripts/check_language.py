"""Check names, docstrings, comments, messages and documentation against the language that CONTRIBUTING.md describes.

Prints one line per finding, `path:line: what is wrong`, and exits with 1 if there is one. Arguments are folders and
files to check; without any, all that git knows.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NAMES = frozenset(
    {"said", "told", "there", "here", "found", "place", "places", "one", "own", "held", "wanted", "made", "given"}
    | {"aimed", "gone", "asked", "whole", "learnt", "got", "meant", "put", "stands", "hold", "beat", "goes", "mend"}
)
"""Names that do not tell what they name: participles and pronouns. Use nouns: `message`, `result`, `path`, `item`."""

PHRASES = {
    "said": "reported, stated, written",
    "told": "reported, given, distinguished",
    "mend(s|ed|ing)?": "fix, repair",
    "passed over": "skipped",
    "learnt": "trained on, learned",
    "anew": "again",
    "(stand|stands|stood|standing) still": "hang, stall",
    "in vain": "without success",
    "without end": "forever, without a limit",
    "the like": "similar",
    "no news": "expected",
    "gone": "ended, missing, no longer there",
    "says? nothing": "is silent, has no information",
    "makes? nothing of": "ignores",
}
"""Words that read like riddles, with what to write in their place."""

QUESTIONS = ("What", "How", "Whether", "Where", "Why")
MOST_QUESTIONS = 0.03
"""Share of docstrings that may begin with a question word; the others begin with a verb, or with a noun for classes."""

PARAMETERS = 4
"""Functions with so many parameters or more describe them in a section `Args:`, with units and shapes."""

ALLOWED: dict[str, frozenset[str]] = {
    "rollmill/jobs/curation/parameters.py": frozenset({"whole"}),  # the flag --whole
    # A field of flows' results, which Prefect stores as JSON.
    "rollmill/generation/outcome.py": frozenset({"made"}),
    "rollmill/jobs/episodes/statistics.py": frozenset({"wanted"}),  # a key of `sft_data_<time>_stats.json`
    # A prompt: another word would make another version of the environment.
    "rollmill/environments/search/agents.py": frozenset({"learnt"}),
}
"""Words by file: data that is read, such as words that a verifier looks for in an answer."""

EXCLUDED = ("examples/performance_problems/images", "scripts/check_language.py")
"""Other repositories, whose commits depend on every byte, and the lists of words themselves."""

_PHRASES = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b", re.IGNORECASE)
_CODE = re.compile(r"^```.*?^```|`[^`]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Finding:
    """One place that does not follow the language."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def check_python(path: Path, source: str) -> list[Finding]:
    """Return the findings of one module, but for the share of question words."""
    tree = ast.parse(source)
    is_test = "tests" in path.parts
    findings = [*_names(path, tree), *_texts(path, source, tree, is_test)]
    if not is_test:
        findings += _arguments(path, tree)
    return sorted(findings, key=lambda finding: finding.line)


def check_markdown(path: Path, text: str) -> list[Finding]:
    """Return the findings of one page; text between backticks is code."""
    return list(_phrases(path, _without_code(text), 1))


def questions(sources: dict[Path, str]) -> list[Finding]:
    """Return the docstrings that begin with a question word, if they are more than a small share of all."""
    findings, count = [], 0
    for path, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                first = (ast.get_docstring(node) or "").split(None, 1)[:1]
                count += len(first)
                if first and first[0] in QUESTIONS:
                    findings.append(
                        Finding(path, node.lineno, f"the docstring of `{node.name}` begins with {first[0]}")
                    )
    return findings if len(findings) > MOST_QUESTIONS * count else []


def _names(path: Path, tree: ast.Module) -> Iterator[Finding]:
    if path.stem in NAMES:
        yield Finding(path, 1, "a file name that does not tell what it is: use a noun")
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                name = node.name
            case ast.arg():
                name = node.arg
            case ast.Name(ctx=ast.Store()):
                name = node.id
            case ast.Attribute(ctx=ast.Store()):
                name = node.attr
            case _:
                continue
        if name.strip("_").lower() in NAMES and name not in ALLOWED.get(path.as_posix(), ()):
            yield Finding(path, node.lineno, f"the name `{name}` does not tell what it is: use a noun")


def _arguments(path: Path, tree: ast.Module) -> Iterator[Finding]:
    # Functions inside of functions are read with what encloses them; methods are reached through their classes.
    blocks: list[ast.Module | ast.ClassDef] = [
        tree,
        *(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)),
    ]
    for block in blocks:
        for node in block.body:
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([argument for argument in arguments if argument.arg not in {"self", "cls"}])
            texts = [ast.get_docstring(node) or ""]
            if node.name == "__init__" and isinstance(block, ast.ClassDef):
                texts.append(ast.get_docstring(block) or "")
            if count >= PARAMETERS and not any("Args:\n" in text for text in texts):
                yield Finding(path, node.lineno, f"`{node.name}` has {count} parameters and no section `Args:`")


def _texts(path: Path, source: str, tree: ast.Module, is_test: bool) -> Iterator[Finding]:
    """Yield banned phrases in docstrings, comments and, but for tests, whose texts are often a model's, messages.

    Args:
        path: The module, relative to the repository.
        source: Its text.
        tree: The same, parsed.
        is_test: Whether only docstrings and comments are read.
    """
    docstrings = {
        node.body[0].value.lineno
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.start[0] in docstrings
        if token.type == tokenize.COMMENT:
            yield from _phrases(path, token.string, token.start[0])
        elif token.type == tokenize.STRING and (is_docstring or not is_test):
            yield from _phrases(path, _without_code(token.string), token.start[0])


def _without_code(text: str) -> str:
    """Return a text with blanks in place of code between backticks and addresses of links."""
    return _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def _phrases(path: Path, text: str, line: int) -> Iterator[Finding]:
    for match in _PHRASES.finditer(text):
        word = match[0].lower()
        if word not in ALLOWED.get(path.as_posix(), ()):
            advice = next(advice for phrase, advice in PHRASES.items() if re.fullmatch(phrase, word))
            yield Finding(path, line + text.count("\n", 0, match.start()), f"`{match[0]}`: write {advice}, or similar")


def main(folders: list[str]) -> int:
    """Check the files under these folders that git knows; print the findings, and return 1 if there are any."""
    listing = subprocess.run(
        ["git", "ls-files", "--", *folders, *(f":!{path}" for path in EXCLUDED)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = [path for line in listing.splitlines() if (path := Path(line)).suffix in {".py", ".md"} and path.is_file()]
    python = {path: path.read_text() for path in paths if path.suffix == ".py"}
    findings = [finding for path, source in python.items() for finding in check_python(path, source)]
    for path in paths:
        if path.suffix == ".md":
            findings += check_markdown(path, path.read_text())
    findings += questions({path: source for path, source in python.items() if "tests" not in path.parts})
    for finding in findings:
        sys.stdout.write(f"{finding}\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
