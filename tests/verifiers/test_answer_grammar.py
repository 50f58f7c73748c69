"""Check texts that the grammars accept against Python's own parser and sympy."""

import ast
import functools
import math
import operator
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.verifiers.gym_entries import EVALUATING, LITERAL, fault, make_gym_entry

SIGNS = [*"0123456789xXyCQ_AEeNSO+-*/%^!().,[]'\"{}:;=@&|~<>?\\ \n\t", "**", "//", "__", "0x1", "1e3", "1.5", "9**9"]
CALLED = ["Pow(", "pow(", "root(", "log(", "Rational(", "Integer(", "S("]
WORDS = ["sin(", "exp(", "sqrt(", "factorial(", "abs(", "Symbol(", "eval(", "print(", "lambda", " if ", " for ", " in "]
PARTS = ["pi", "C1", "constant", "__import__", ".real", "f'", "b'", "'A'", "['Q', '_']", "1, 2", "ｅ", "\x00", "#"]
PIECES = st.sampled_from([*SIGNS, *WORDS, *CALLED, *PARTS])
EXPRESSIONS = st.recursive(
    st.sampled_from(["0", "1", "2", "9", "17", "1.5", "2e2", "x", "C", "99", "(1/2)"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**", "//", "%", "^", " "]), inner).map("".join),
        inner.map("({})".format),
        inner.map("({})!".format),
        st.tuples(st.sampled_from(["sin", "exp", "sqrt", "factorial", "-", "S"]), inner).map("{0[0]}({0[1]})".format),
        st.tuples(st.sampled_from(["Pow", "pow", "root", "log", "Rational"]), inner, inner).map(
            lambda parts: f"{parts[0]}({parts[1]}, {parts[2]})"
        ),
    ),
    max_leaves=8,
)
LITERALS = st.recursive(
    st.sampled_from(["1", "-2", "1.5", "'Q'", '"_"', "'A B'"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(", ".join).map("[{}]".format),
        st.lists(inner, min_size=1, max_size=4).map(", ".join).map("({},)".format),
    ),
    max_leaves=10,
)
VALID = st.one_of(EXPRESSIONS, LITERALS)
# A valid text with something put into it; and only pieces.
TEXTS = st.one_of(
    VALID,
    st.tuples(VALID, PIECES, st.integers(0, 30)).map(
        lambda parts: parts[0][: parts[2]] + parts[1] + parts[0][parts[2] :]
    ),
    st.lists(PIECES, max_size=12).map("".join),
)
HARMLESS = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.Constant,
    ast.List,
    ast.Tuple,
    ast.Load,
    ast.operator,
    ast.unaryop,
)
CALLS = {"Integer", "Float", "Symbol", "factorial", "factorial2", "sin", "exp", "sqrt", "Abs", "abs"}
CALLS |= {"Pow", "pow", "root", "log", "ln", "Rational", "S"}
EVERY_TIME = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@functools.cache
def sympy_names():
    names = {}
    exec("from sympy import *", names)  # as parse_expr does
    return names | {"abs": abs, "pow": pow}


def evaluated(name, text):
    """Return the code that the scorer evaluates, or None if it gives up before that."""
    if name in LITERAL:
        return text.lstrip(" \t")
    from sympy.parsing.sympy_parser import TokenError, standard_transformations, stringify_expr

    try:
        return stringify_expr(text, {}, dict(sympy_names()), standard_transformations).strip()
    except (TokenError, SyntaxError):
        return None


def harmless(node):
    if isinstance(node, ast.Call):
        plain = not node.keywords and not any(isinstance(argument, ast.Starred) for argument in node.args)
        return plain and isinstance(node.func, ast.Name) and node.func.id in CALLS
    if isinstance(node, ast.Name):
        return "__" not in node.id and node.id.isascii()
    return isinstance(node, HARMLESS)


@pytest.mark.parametrize("name", EVALUATING)
def test_accepted_text_parses_to_harmless_python_nodes_only(name):
    make_gym_entry(name)

    @EVERY_TIME
    @given(TEXTS)
    def check(text):
        if fault(name, text) is not None or (code := evaluated(name, text)) is None:
            return
        try:
            tree = ast.parse(code, mode="eval")
        except SyntaxError:
            return
        assert [ast.dump(node) for node in ast.walk(tree) if not harmless(node)] == []

    check()


def bits(value):
    return max(abs(value.numerator), value.denominator).bit_length()


AS_OPERATOR = {"Pow": ast.Pow(), "pow": ast.Pow(), "root": ast.Pow(), "Rational": ast.Div()}


def second(node):
    """Return the exponent of a power; of a root, its reciprocal."""
    return ast.BinOp(ast.Constant(1), ast.Div(), node.args[1]) if node.func.id == "root" else node.args[1]


def worked_out(node):
    """Return the exact value; None if it is undefined. Fails before it would compute a large one."""
    if isinstance(node, ast.Call):
        if node.func.id in {"Integer", "Float"} and isinstance(node.args[0], ast.Constant):
            return Fraction(str(node.args[0].value))
        if node.func.id in {"Pow", "pow", "root", "Rational"} and len(node.args) == 2:
            return worked_out(ast.BinOp(node.args[0], AS_OPERATOR[node.func.id], second(node)))
        value = worked_out(node.args[0]) if node.args else None
        if node.func.id in {"Integer", "S", "Rational"}:
            return value
        if node.func.id != "factorial" or value is None or value < 0 or value.denominator > 1:
            return None
        assert value < 600
        return Fraction(math.factorial(int(value)))
    if isinstance(node, ast.UnaryOp):
        value = worked_out(node.operand)
        return -value if isinstance(node.op, ast.USub) and value is not None else value
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    if not isinstance(node, ast.BinOp):
        return None
    left, right = worked_out(node.left), worked_out(node.right)
    if left is None or right is None or (isinstance(node.op, ast.BitXor) and bits(left) + bits(right) > 60):
        return None
    if isinstance(node.op, ast.Pow):
        assert abs(right) * (bits(left) - 1) < 5000 or left in {0, 1, -1}
        right = int(right) % 2 if left in {0, 1, -1} and right >= 0 else right
    operate = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "truediv", ast.FloorDiv: "floordiv"}
    operate |= {ast.Mod: "mod", ast.Pow: "pow", ast.BitXor: "xor"}
    try:
        return Fraction(getattr(operator, operate[type(node.op)])(left, right))
    except (ArithmeticError, TypeError, ValueError):
        return None


def test_accepted_arithmetic_has_a_bounded_value():
    make_gym_entry("countdown")
    sizes = []

    @EVERY_TIME
    @given(EXPRESSIONS)
    def check(text):
        if fault("countdown", text) is not None or (code := evaluated("countdown", text)) is None:
            return
        try:
            value = worked_out(ast.parse(code, mode="eval").body)
        except SyntaxError:
            return
        if value is not None:
            sizes.append(bits(value))
            assert sizes[-1] <= 4200

    check()
    assert max(sizes) > 60
