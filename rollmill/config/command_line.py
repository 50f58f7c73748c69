"""Build a command line from a pydantic model: one flag per field, and one line per mistake."""

from __future__ import annotations

import argparse
import difflib
import inspect
import operator
import os
import shlex
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from rollmill.config.parameter import environment_variables, field_aliases
from rollmill.errors import RollmillError, file_error
from rollmill.terminal.escapes import visible
from rollmill.terminal.interruption import interrupted, interruptions_noted, look, status
from rollmill.terminal.program import program_name, renamed_calls
from rollmill.terminal.stall_watch import watch

ModelT = TypeVar("ModelT", bound=BaseModel)

Settle = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]

_METAVARS = {int: "N", float: "X", Path: "PATH"}

_ARGPARSE_TEXTS = {
    "expected one argument": "needs a value",
    "expected at least one argument": "needs a value",
    "ignored explicit argument": "takes no value, found",
}

_TEXTS = {
    "missing": "required",
    "greater_than_equal": "{value} is too small: must be at least {ge}",
    "greater_than": "{value} is too small: must be more than {gt}",
    "less_than_equal": "{value} is too large: must be at most {le}",
    "less_than": "{value} is too large: must be less than {lt}",
    "multiple_of": "{value} is not a multiple of {multiple_of}",
    "int_parsing": "{value} is not a whole number",
    "int_parsing_size": "{value} has too many digits",
    "float_parsing": "{value} is not a number",
    "finite_number": "{value} is not a finite number",
    "bool_parsing": "{value} is neither yes nor no: use 1, 0, true, false, yes or no",
    "literal_error": "{value} is not one of {expected}",
    "enum": "{value} is not one of {expected}",
    "string_too_short": "{value} is too short: needs at least {min_length} characters",
    "string_too_long": "{value} is too long: at most {max_length} characters",
    "string_pattern_mismatch": "{value} does not match {pattern}",
    "too_short": "{actual_length} values are too few: needs at least {min_length}",
    "too_long": "{actual_length} values are too many: at most {max_length}",
    "path_not_file": "{value} is not a file",
    "path_not_directory": "{value} is not a directory",
}


class _Flag:
    """The command line flag of one field."""

    def __init__(self, name: str, field: FieldInfo) -> None:
        self.name = name
        self.field = field
        extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
        self.group = str(extra.get("group", ""))
        self.aliases = field_aliases(field)
        self.env = environment_variables(name, field)
        """Environment variables that set it; the first one that is set counts."""
        kinds = _members(field.annotation)
        collections = [kind for kind in kinds if get_origin(kind) in (list, tuple, set, frozenset)]
        self.many = bool(collections) or extra.get("several") is True
        self.switch = bool in kinds and not self.many
        self.default: Any = None if field.is_required() else field.get_default(call_default_factory=True)
        self.negatable = self.switch and self.default is not False and not name.startswith("no_")
        items = _members(get_args(collections[0])[0]) if collections else kinds
        self.choices = {str(choice): choice for kind in items for choice in _choices(kind)}
        kind = _METAVARS.get(next(iter(items), str), "TEXT")
        self.metavar = str(extra.get("metavar", "{" + ",".join(self.choices) + "}" if self.choices else kind))

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Declare the flag; values remain text, which pydantic parses."""
        common: dict[str, Any] = {"dest": self.name, "default": argparse.SUPPRESS}
        look: dict[str, Any] = {"action": "store_true"} if self.switch else {"metavar": self.metavar}
        if self.many:
            look |= {"nargs": "+", "action": "extend"}
        group.add_argument(f"--{self.name}", help=self.help(), **look, **common)
        if self.negatable:
            group.add_argument(f"--no_{self.name}", action="store_false", help=f"not --{self.name}", **common)
        for alias in self.aliases:  # hidden: the help of the flag itself lists them
            group.add_argument(f"--{alias}", help=argparse.SUPPRESS, **look, **common)
            if self.negatable:
                group.add_argument(f"--no_{alias}", action="store_false", help=argparse.SUPPRESS, **common)

    @property
    def options(self) -> set[str]:
        """Return all its spellings on a command line."""
        spellings = {f"--{name}" for name in (self.name, *self.aliases)}
        return spellings | ({f"--no_{option[2:]}" for option in spellings} if self.negatable else set())

    def help(self) -> str:
        """Return the text for `--help`: the description, the default and the environment variables."""
        notes = []
        if self.field.is_required():
            notes.append("required")
        elif self.default is True:
            notes.append("default: on")
        elif self.default is not None and self.default is not False and self.default not in ("", [], (), {}):
            notes.append(f"default: {_shown_default(self.default)}")
        if self.aliases:
            notes.append(f"also: {', '.join(f'--{alias}' for alias in self.aliases)}")
        if self.env:
            notes.append(f"env: {', '.join(self.env)}")
        text = self.field.description or self.field.title or ""
        return (f"{text} ({'; '.join(notes)})" if notes else text).strip().replace("%", "%%")

    def from_environment(self, value: str) -> Any:
        """Return the value of an environment variable. Raises `ValueError` (shlex's)."""
        return shlex.split(value) if self.many else value.strip()

    def choose(self, value: Any) -> Any:
        """Return the choice for its text; in `Literal[1, 2]` choices are not text, and pydantic would refuse `"1"`."""
        if isinstance(value, list):
            return [self.choose(item) for item in value]
        return self.choices.get(value, value) if isinstance(value, str) else value


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        text = message.removeprefix("argument ")
        for theirs, ours in _ARGPARSE_TEXTS.items():
            text = text.replace(theirs, ours)
        _fail(self.prog, [text])


def parse_command_line(
    model: type[ModelT],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str,
    examples: str,
    environ: Mapping[str, str] | None = None,
    settle: Settle = operator.or_,
) -> ModelT:
    """Parse the parameters of one call: flags over environment variables over the model's defaults.

    A field's `json_schema_extra` may have `group`, `metavar`, `aliases`, and `env` (names, or True for the field's name
    in capitals). An environment variable that is set but empty counts as not set. Every mistake is reported in one line
    on stderr that names the flag or variable; then the process exits with status 2.

    Args:
        model: The model of the parameters.
        argv: Arguments; None for those of the process.
        prog: Name of the command, for the usage and the messages.
        description: Description of the command, for `--help`.
        examples: Example calls, for `--help`.
        environ: Environment variables; None for those of the process.
        settle: Merges the values of environment variables (first argument) and of flags, both by field name.
    """
    prog = program_name(prog)
    flags = _flags(model)
    parser = _build_parser(flags, prog, description, examples)
    tokens = _normalize(list(sys.argv[1:] if argv is None else argv), parser)
    parsed, unknown = parser.parse_known_args(tokens)
    if unknown:
        refused = getattr(model, "refused", {})
        _fail(prog, _unknown_texts(unknown, list(parser._option_string_actions), refused))
    from_environment, sources, mistakes = _read_environment(flags, os.environ if environ is None else environ)
    from_flags = vars(parsed)
    spelled = {name: _spellings(flags[name], tokens) for name in from_flags}
    sources |= {name: used[-1] if used else f"--{name}" for name, used in spelled.items()}
    # A flag overrides a malformed environment variable.
    mistakes = {name: text for name, text in mistakes.items() if name not in from_flags}
    if mistakes:
        _fail(prog, list(mistakes.values()))
    try:
        values = settle(from_environment, from_flags)
        return model.model_validate({name: flags[name].choose(value) for name, value in values.items()})
    except ValidationError as error:
        _fail(prog, _error_texts(error, flags, sources))
    except RollmillError as error:
        _fail(prog, [str(error)])


def parse_command(
    commands: Mapping[str, type[BaseModel]],
    argv: Sequence[str] | None = None,
    *,
    prog: str,
    description: str,
    examples: str,
) -> BaseModel:
    """Parse the parameters of the command that the first argument names; see `parse_command_line`.

    `-` and `_` are interchangeable. A model's docstring is the description of its command. Without a command, all
    commands are listed.

    Args:
        commands: The parameter models, by command.
        argv: Arguments; None for those of the process.
        prog: Name of the program, for the usage and the messages.
        description: Description of the program, for the list of commands.
        examples: Example calls, for the list of commands.
    """
    prog = program_name(prog)
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0].replace("-", "_") if arguments else ""
    if name in commands:
        return parse_command_line(
            commands[name], arguments[1:], prog=f"{prog} {name}", description=_describe(commands[name]), examples=""
        )
    if not arguments or arguments[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_list_commands(commands, prog, description, examples))
        raise SystemExit(0 if arguments else 2)
    close = difflib.get_close_matches(name, commands, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(commands)}"
    return _fail(prog, [f"{_shown(arguments[0])} is not a command: {hint}"])


def _describe(model: type[BaseModel]) -> str:
    return inspect.cleandoc(model.__doc__ or "")


def _list_commands(commands: Mapping[str, type[BaseModel]], prog: str, description: str, examples: str) -> str:
    """Return the help text of a program with commands.

    Args:
        commands: The parameter models, by command.
        prog: Name of the program.
        description: Description of the program.
        examples: Example calls, one a line.
    """
    width = max(map(len, commands))
    lines = [f"  {name:{width}}  {_describe(model).partition(chr(10))[0]}".rstrip() for name, model in commands.items()]
    return "\n".join(
        [f"usage: {prog} COMMAND [flags]", "", description, "", "commands:", *lines, "",
         f"{prog} COMMAND --help lists a command's flags.", "", "examples:", renamed_calls(examples)]
    )  # fmt: skip


@contextmanager
def report_errors(prog: str) -> Iterator[None]:
    """Exit on expected errors with a message and a status; works as a `with` block and as a decorator.

    `RollmillError`, and files that cannot be used (see `file_error`): one line and status 1. Ctrl-C: status 130.
    SIGTERM in an `interruptible` block: 143. An output that is not read any more (`| head`): 141, without a message.
    Any other exception is a bug and keeps its traceback.
    """
    prog = program_name(prog)
    try:
        with interruptions_noted():
            try:
                yield
            except Exception:
                if interrupted():
                    look(again=True)
                raise
            finally:
                sys.stdout.flush()  # raises BrokenPipeError here rather than at the interpreter's exit
    except RollmillError as error:
        sys.stderr.write(f"{prog}: {visible(str(error))}\n")
        if watch.stalled:  # at its exit the interpreter would wait for stalled threads
            sys.stderr.flush()
            os._exit(1)
        raise SystemExit(1) from None
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        if (failure := file_error(error)) is None:
            raise
        sys.stderr.write(f"{prog}: {failure}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt as error:
        sys.stderr.write(f"\n{prog}: stopped: run the same command again to continue\n")
        raise SystemExit(status(error)) from None


def _build_parser(flags: Mapping[str, _Flag], prog: str, description: str, examples: str) -> _Parser:
    """Return the argparse parser of a command.

    Args:
        flags: The flags, by field name.
        prog: Name of the command.
        description: Description of the command.
        examples: Example calls, one a line; empty for none.
    """
    needed = [f"--{flag.name} {flag.metavar}" for flag in flags.values() if flag.field.is_required()]
    parser = _Parser(
        prog=prog,
        usage=" ".join([prog, *needed, "[flags]"]),
        description=description,
        epilog=f"examples:\n{renamed_calls(examples)}" if examples else None,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=32),
        allow_abbrev=False,
    )
    _add_flags(parser, flags)
    return parser


def _add_flags(parser: argparse.ArgumentParser, flags: Mapping[str, _Flag]) -> None:
    groups: dict[str, argparse._ArgumentGroup] = {"": parser._optionals}
    for flag in flags.values():
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        flag.add_to(groups[flag.group])


def _flags(model: type[BaseModel]) -> dict[str, _Flag]:
    return {field.alias or name: _Flag(field.alias or name, field) for name, field in model.model_fields.items()}


def declare_flags(parser: argparse.ArgumentParser, model: type[BaseModel]) -> list[argparse.Action]:
    """Add a model's flags to a parser that is only read, for shell completion; return those that `--help` lists.

    They have the field's choices, and its title, which is shorter than the description, as their help. For a parser
    that parses, see `parse_command_line`.
    """
    flags = _flags(model)
    _add_flags(parser, flags)
    actions = [action for action in parser._actions if action.dest in flags and action.help != argparse.SUPPRESS]
    for action in actions:
        flag = flags[action.dest]
        if f"--{flag.name}" in action.option_strings:  # else it is the negation of a switch, whose help is short
            action.help = (flag.field.title or flag.name).replace("%", "%%")
        if action.nargs != 0:
            action.choices = list(flag.choices) or None
    return actions


def _normalize(argv: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Rewrite arguments for argparse: `--num-rollout` as `--num_rollout`, and `--x -1e-3` as `--x=-1e-3`.

    Argparse would mistake such a value for a flag.
    """
    known = parser._option_string_actions
    tokens: list[str] = []
    for token in argv:
        name, equals, value = token.partition("=")
        spelled = "--" + name[2:].replace("-", "_")
        before = known.get(tokens[-1]) if tokens else None
        if name.startswith("--") and spelled in known:
            tokens.append(spelled + equals + value)
        elif before and before.nargs is None and token.startswith("-") and _is_number(token):
            tokens[-1] += f"={token}"
        else:
            tokens.append(token)
    return tokens


def _spellings(flag: _Flag, tokens: Sequence[str]) -> list[str]:
    """Return the names with which a flag was given, in order, of which the last one sets the value.

    For a switch, `--no_x` counts as `--x`.
    """
    used = [token.partition("=")[0] for token in tokens]
    named = [option for option in used if option in flag.options]
    return [f"--{option[2:].removeprefix('no_')}" for option in named] if flag.negatable else named


def _unknown_texts(unknown: Sequence[str], known: Sequence[str], refused: Mapping[str, str]) -> list[str]:
    texts = []
    for token in unknown:
        if token.startswith("-") and not _is_number(token):
            name = token.partition("=")[0]
            spelled = name.lstrip("-").replace("-", "_")
            if spelled in refused:
                texts.append(f"{name}: {refused[spelled]}: leave it out")
                continue
            close = difflib.get_close_matches(f"--{spelled}", known, n=1)
            texts.append(f"{name}: unknown flag" + (f"; did you mean {close[0]}?" if close else "; see --help"))
    return texts or [f"{_shown(unknown[0])} follows no flag that takes a value; see --help"]


def _read_environment(
    flags: Mapping[str, _Flag], environ: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Return the values of environment variables, their sources, and mistakes, each by field name."""
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    mistakes: dict[str, str] = {}
    for name, flag in flags.items():
        variable = next((variable for variable in flag.env if environ.get(variable, "").strip()), None)
        if variable is None:
            continue
        try:
            values[name] = flag.from_environment(environ[variable])
            sources[name] = f"{variable} (environment)"
        except ValueError as error:
            text = _shown(environ[variable])
            mistakes[name] = f"{variable} (environment): {text} cannot be split into words: {error}"
    return values, sources, mistakes


def _error_texts(error: ValidationError, flags: Mapping[str, _Flag], sources: Mapping[str, str]) -> list[str]:
    """Return one line per invalid value; messages of a union's members about the same value are joined by "or"."""
    texts_by_value: dict[tuple[str, str], list[str]] = {}
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        flag = flags.get(name)
        label = sources.get(name, f"--{name}") if name else ""
        text = _error_text(detail, flag)
        if detail["type"] == "missing" and flag and flag.env:
            text += f" (or set {flag.env[0]} in the environment)"
        texts = texts_by_value.setdefault((label, repr(detail["input"]) if name else text), [])
        if text not in texts:
            texts.append(text)
    return [
        ": ".join([*([label] if label else []), ", or ".join(texts)]) for (label, _), texts in texts_by_value.items()
    ]


def _error_text(detail: ErrorDetails, flag: _Flag | None) -> str:
    context = dict(detail.get("ctx", {}))
    kind, value = detail["type"], _shown(detail["input"])
    if kind in {"value_error", "assertion_error"}:
        return f"{value}: {context['error']}" if detail["loc"] else str(context["error"])
    if kind == "missing" and len(detail["loc"]) > 1:
        return "needs more values"
    if kind in {"literal_error", "enum"} and flag and flag.choices:
        close = difflib.get_close_matches(str(detail["input"]), list(flag.choices), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{value} is not one of {', '.join(flag.choices)}{hint}"
    if kind in _TEXTS:
        return _TEXTS[kind].format(**{**context, "value": value})
    message = detail["msg"]
    return f"{value}: {message[:1].lower()}{message[1:]}".replace("input should", "should")


def _fail(prog: str, texts: Sequence[str]) -> NoReturn:
    for text in texts:
        sys.stderr.write(f"{prog}: {' '.join(visible(text).split())}\n")
    raise SystemExit(2)


def _members(annotation: Any) -> list[Any]:
    """Return the types of a field's values: `Annotated`, `Optional` and unions resolved, None left out."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    return [] if annotation in (None, type(None)) else [annotation]


def _choices(kind: Any) -> list[Any]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    return [member.value for member in kind] if isinstance(kind, type) and issubclass(kind, Enum) else []


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and _is_number(value) and value == value.strip() else repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _shown_default(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return " ".join(_shown_default(item) for item in value)
    return str(value.value if isinstance(value, Enum) else value)
