"""Render agents' templates, which may be untrusted: they can neither run code nor use unbounded time or memory.

Jinja's immutable sandbox keeps templates from Python's objects. It does not bound them: nested loops, `'x' * 10**10` or
a doubling list use up any time and memory. Here every operation whose result has a size is charged, before or right
after it, to a budget of about one unit per character or item. The bound is a count, so that a template is refused on
every machine or on none; a limit of CPU time, far beyond it, catches operations that are priced too low.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import lru_cache, wraps
from typing import Any, NoReturn, cast

from jinja2 import StrictUndefined, TemplateError, TemplateRuntimeError, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.filters import FILTERS
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

from rollmill.agents.template_meter import (
    ATTRIBUTES,
    CHECKS,
    CONTAINERS,
    METER,
    METHODS,
    STEP,
    Meter,
    check_attribute,
    check_method,
    check_operands,
)

LONGEST = 100_000
"""Maximum length of a template, in characters."""
MOST_STATEMENTS = 500
"""Maximum number of `{% %}`: jinja's compile time grows with their number times that of the assigned names."""
_FILTER_NAMES = """
    abs attr batch capitalize center count d default dictsort e escape filesizeformat first float forceescape format
    groupby indent int items join last length list lower map max min reject rejectattr replace reverse round safe select
    selectattr slice sort string sum title tojson trim truncate unique upper urlencode wordcount wordwrap
"""
_FILTERS = frozenset(_FILTER_NAMES.split())
"""Jinja's filters, except those whose result size is not known beforehand, and `random`."""
_CONSTRUCTORS = (safe_range, dict, Namespace, Cycler, Joiner)
_OF_JINJA = (Macro, BlockReference, LoopContext, Cycler, Joiner)


class AgentTemplate:
    """Replacement of `jinja2.Template` in mini-swe-agent: built from its text, rendered with keyword arguments.

    Raises only `jinja2.TemplateError`, whatever is wrong with the template.
    """

    def __init__(self, source: str, **_: Any) -> None:
        self.source = source
        if len(source) > LONGEST:
            raise TemplateSyntaxError(f"it has {len(source):,} characters: at most {LONGEST:,} are read", 1)
        if source.count("{%") > MOST_STATEMENTS:
            raise TemplateSyntaxError(f"it has more than {MOST_STATEMENTS:,} statements", 1)
        try:
            self._compiled = _compiled(source)
        except TemplateError:
            raise
        except Exception as error:  # deep nesting fails in Python's compiler with several exceptions
            raise TemplateSyntaxError(f"it cannot be compiled: {type(error).__name__}", 1) from error

    def render(self, **variables: Any) -> str:
        """Render the template. Raises `TemplateFailedError`, which carries the template's source."""
        token = METER.set(Meter(STEP + len(self.source)))
        try:
            text: str = self._compiled.render(variables)
            return text
        except TemplateError as error:
            raise TemplateFailedError(str(error.message), self.source) from error
        except Exception as error:  # a template is a program: it divides by zero, recurses, adds text to numbers
            what = f"{type(error).__name__}: {error}"[:300]
            raise TemplateFailedError(" ".join(what.split()), self.source) from error
        finally:
            METER.reset(token)


class TemplateFailedError(TemplateRuntimeError):
    """A template could not be rendered; `source` is its text."""

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


@lru_cache(maxsize=64)
def _compiled(source: str) -> Any:
    return _ENVIRONMENT.from_string(source)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which every operation is charged to the `METER`."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, optimized=False, finalize=_to_text)
        self.globals = {name: value for name, value in self.globals.items() if name != "lipsum"}
        of_numbers: dict[str, Any] = {name: _of_numbers(self.tests[name]) for name in ("divisibleby", "even", "odd")}
        self.tests = {name: _tested(name, test) for name, test in {**self.tests, **of_numbers}.items()}
        self.filters = {name: _metered(name, FILTERS[name]) for name in _FILTERS} | _METER_FILTERS

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = cast(nodes.Template, _Metering().visit(super()._parse(source, name, filename)))
        return cast(nodes.Template, template.set_environment(self))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Charge and compute a binary operation.

        Args:
            context: Jinja's rendering context.
            operator: As in the template.
            left: Left operand.
            right: Right operand.
        """
        meter = METER.get()
        meter.pay_step()
        for value in (left, right):
            if isinstance(value, int):
                meter.weigh(value)
        check_operands(meter, operator, left, right)
        result = self.binop_table[operator](left, right)
        meter.weigh(result)
        return result

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a macro, one of `_CONSTRUCTORS`, or a method of `METHODS`."""
        meter = METER.get()
        meter.pay_step()
        receiver = getattr(__obj, "__self__", None)
        if isinstance(receiver, tuple(METHODS)) and isinstance(__obj, types.BuiltinMethodType):
            check_method(meter, receiver, __obj.__name__, args, kwargs)
        elif isinstance(__obj, LoopContext) and args:
            args = (meter.counted(args[0]), *args[1:])
        elif __obj not in _CONSTRUCTORS and not isinstance(__obj, _OF_JINJA) and not isinstance(receiver, _OF_JINJA):
            _refuse_call(__obj)
        else:  # `m(*items)` copies them, and jinja's constructors iterate over them
            meter.weigh([None] * (len(args) + len(kwargs)))
            if not isinstance(__obj, Macro | BlockReference):
                for value in (*args, *kwargs.values()):
                    _charged(value)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str | int | list | tuple | dict):
            meter.weigh(result)
        return result


class _Metering(NodeTransformer):
    """Wraps nodes that call no hook of the environment in filters that charge them."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        """Charge every iteration."""
        self.generic_visit(node)
        node.iter = _filter_node("counted", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Charge the result of `~`."""
        self.generic_visit(node)
        return _filter_node("joined", nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Charge both sides of a comparison."""
        self.generic_visit(node)
        node.expr = _filter_node("paid", node.expr)
        for operand in node.ops:
            operand.expr = _filter_node("paid", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Charge slices, and keys, which may be tuples of any length."""
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _filter_node("paid", node)
        if not isinstance(node.arg, nodes.Const):
            node.arg = _filter_node("paid", node.arg)
        return node

    def _built(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") == "store" else _filter_node("built", node)

    visit_List = visit_Tuple = visit_Dict = _built  # noqa: N815

    def _other_files(self, node: nodes.Node) -> NoReturn:
        raise TemplateSyntaxError(f"{type(node).__name__.lower()} needs other templates: there are none", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _other_files  # noqa: N815


def _filter_node(name: str, node: nodes.Node) -> nodes.Filter:
    return nodes.Filter(node, f"rollmill_{name}", [], [], None, None, lineno=node.lineno)


def _to_text(value: Any) -> str:
    meter = METER.get()
    meter.charge(STEP)
    meter.weigh(value)
    return str(value)


def _charged(value: Any) -> Any:
    if isinstance(value, (str, int, float, dict, *CONTAINERS)):
        METER.get().weigh(value)
    return value


def _built(value: Any) -> Any:
    METER.get().weigh(value)
    return value


def _join(values: list[Any]) -> str:
    METER.get().weigh(values)
    return "".join(map(str, values))


_METER_FILTERS: dict[str, Callable[..., Any]] = {
    "rollmill_counted": lambda items: METER.get().counted(items),
    "rollmill_paid": _charged,
    "rollmill_built": _built,
    "rollmill_joined": _join,
}


def _metered(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a Jinja filter so that its arguments and result are charged.

    A generator that it returns is evaluated to a list.
    """
    skipped = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context or the environment

    @wraps(function)
    def filtered(*args: Any, **kwargs: Any) -> Any:
        meter = METER.get()
        meter.pay_step()
        arguments = [
            list(meter.counted(argument)) if isinstance(argument, Iterator) else argument for argument in args[skipped:]
        ]
        for argument in (*arguments, *kwargs.values()):
            if not (name in ("default", "d", "attr") and not isinstance(argument, str | int | list | tuple | dict)):
                meter.weigh(argument)
        if position := ATTRIBUTES.get(name):
            check_attribute(
                meter, arguments[0], kwargs.get("attribute", arguments[position] if len(arguments) > position else None)
            )
        if check := CHECKS.get(name):
            check(meter, *arguments, **kwargs)
        result = function(*args[:skipped], *arguments, **kwargs)
        if isinstance(result, Iterator):
            result = list(meter.counted(result))
        return _charged(result)

    return filtered


def _tested(name: str, test: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a Jinja test so that its arguments are charged, except `defined` and `undefined`."""
    if name in ("defined", "undefined"):
        return test
    skipped = 1 if hasattr(test, "jinja_pass_arg") else 0

    @wraps(test)
    def tested(*args: Any, **kwargs: Any) -> Any:
        METER.get().pay_step()
        for value in (*args[skipped:], *kwargs.values()):
            _charged(value)
        return test(*args, **kwargs)

    return tested


def _of_numbers(test: Any) -> Callable[..., bool]:
    """Restrict a test that divides to numbers: on text, `%` would format a string of any width."""
    return lambda *values: all(isinstance(value, int | float) for value in values) and bool(test(*values))


def _refuse_call(called: Any) -> NoReturn:
    raise SecurityError(f"{getattr(called, '__name__', type(called).__name__)} cannot be called in a template")


_ENVIRONMENT = _Environment()
