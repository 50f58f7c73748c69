import pytest

from rollmill.verifiers.gym_answers import answer_fault
from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier
from tests.verifiers.gym_entries import EVALUATING, IN_VARIABLES, fault, make_gym_entry

ATTACKS = {
    "import": "__import__('os').system('id')",
    "import in a list": "[__import__('os').system('id')]",
    "import in a number's place": "1 + __import__('os').getpid()",
    "attribute chain": "().__class__.__base__.__subclasses__()",
    "attribute of a list": "[].__class__",
    "attribute of a number": "1 .__class__",
    "attribute of a float": "1..__class__",
    "attribute of a text": "'a'.join(['b'])",
    "format string": "'{0.__class__}'.format(1)",
    "f-string": "f'{__import__(\"os\").getpid()}'",
    "f-string in a list": "[f'{1}']",
    "old formatting": "'%s' % 1",
    "repeated text": "'a'*999999999",
    "repeated list": "[0]*999999999",
    "range": "[*range(10**9)]",
    "lambda": "(lambda: 1)()",
    "lambda in a list": "[lambda: 1]",
    "comprehension": "[x for x in (1, 2)]",
    "generator": "(x for x in [1])",
    "set comprehension": "{x for x in [1]}",
    "dictionary": "{'a': 1}",
    "walrus": "(a := 1)",
    "conditional": "1 if 1 else 2",
    "and": "1 and print()",
    "not": "not 1",
    "comparison": "1 < 2",
    "chain of comparisons": "1 == 1 == 1",
    "await": "await x",
    "yield": "(yield 1)",
    "getattr": "getattr(1, '__class__')",
    "getattr by parts": "getattr(__builtins__, 'ev' + 'al')('1')",
    "globals": "globals()",
    "print": "print(1)",
    "open": "open('/etc/passwd').read()",
    "input": "input()",
    "exit": "exit(0)",
    "eval": "eval('1')",
    "exec": "exec('import os')",
    "compile": "compile('1', '', 'eval')",
    "star arguments": "print(*[1])",
    "keyword arguments": "print(**{})",
    "starred": "[*[1]]",
    "bytes": "b'1'",
    "bytes in a list": "[b'1']",
    "raw text": "[r'1']",
    "escapes": "['\\x5f\\x5fimport\\x5f\\x5f']",
    "an escaped name": "\\x5f\\x5fimport\\x5f\\x5f('os')",
    "a named character": "['\\N{DIGIT ONE}']",
    "triple quotes": "'''1'''",
    "adjacent texts": "'a' 'b'",
    "an open quote": "'a",
    "subscript": "[1][0]",
    "slice": "'abc'[::-1]",
    "ellipsis": "...",
    "none": "None",
    "dunder": "__builtins__",
    "debug": "__debug__",
    "full-width letters": "ｅｖａｌ('1')",
    "mathematical letters": "𝐞𝐯𝐚𝐥(1)",
    "full-width digits": "[１]",
    "a greek name": "[π]",
    "no-break space": "[1,\u00a02]",
    "null byte": "1\x00",
    "null byte in a text": "['\x00']",
    "a statement on the next line": "1\nimport os",
    "a statement after a semicolon": "1; import os",
    "an assignment": "a = 1",
    "backslash continuation": "[1, \\\n2]",
    "comment": "1 # 2",
    "comment in a list": "[1, # 2\n3]",
    "form feed": "[1,\x0c2]",
    "parentheses": "(" * 10_000 + "1" + ")" * 10_000,
    "brackets": "[" * 10_000 + "]" * 10_000,
    "some brackets": "[" * 150 + "1" + "]" * 150,
    "open brackets": "[" * 5000,
    "signs": "-" * 9000 + "1",
    "powers in a row": "**".join(["1"] * 2000),
    "a power tower": "9**9**9",
    "a higher one": "9**9**9**9",
    "a tower in brackets": "((9**9)**9)**9**3",
    "a tower of negatives": "(-9)**(-9)**9**9",
    "a large power": "10**10000000",
    "a power of a float": "1.5**99999999",
    "a power of a power": "(2**4000)**4000",
    "a root of a large power": "(10**9999999)**(1/2)",
    "a long exponent": "1e999999999",
    "a small one": "1e-999999999",
    "a shift": "1<<9999999999",
    "a factorial": "99999999!",
    "factorials": "((5!)!)!",
    "a factorial by name": "factorial(99999999)",
    "a long number": "[" + "9" * 5000 + "]",
    "a long sum": "+".join(["1"] * 9999),
    "a hexadecimal number": "[0x1]",
    "a complex number": "[1j]",
    "matrix product": "1@1",
    "sympify": "sympify('__import__(\"os\").getpid()')",
    "short sympify": "S('1')",
    "evaluated numerically": "N('1')",
    "symbol": "Symbol('__import__')",
    "symbols": "symbols('x:999999999')",
    "function": "Function('f')(1)",
    "lambdify": "lambdify(1, '__import__(\"os\").getpid()')()",
    "parse_expr": "parse_expr('1')",
    "a lambda of sympy": "Lambda(1, 1)",
    "a plot": "plot(1)",
    "preview": "preview(1)",
    "source": "source(sin)",
    "tests": "test()",
    "a substitution": "sin(1).subs(1, 2)",
    "an attribute of a function": "sin.__init__.__globals__",
    "a method of a number": "Integer(1).evalf(999999999)",
    "many digits": "pi.evalf(999999999)",
    "a prime": "prime(999999999)",
    "a factorization": "factorint(10**200 + 1)",
    "a polynomial": "cyclotomic_poly(99999999)",
    "a sum": "Sum(1, (k, 1, 999999999)).doit()",
    "repeated decimals": "0.2[1]",
    "a function without its argument": "sqrt()",
    "two arguments": "sqrt(4, evaluate=False)",
    "three arguments of a power": "pow(2, 3, 5)",
    "a power by name": "Pow(10, 10000000)",
    "powers by name": "pow(9, pow(9, pow(9, 9)))",
    "a root that is a power": "root(9, 1/9999999)",
    "a root of a tiny number": "root(9, 1e-300)",
    "a power without its exponent": "pow(2)",
    "a rational of a text": "Rational('1/2')",
    "an integer of a text": 'Integer("1")',
    "a rational of a power": "Rational(9**9, 2)",
    "a rational of three": "Rational(1, 2, 3)",
    "a rational without an end": "Rational(1, 0)",
    "a long rational": "Rational(1, " + "9" * 400 + ")",
    "a power of a rational": "Rational(3, 2)**99999999",
    "a sympified sum": "S(1 + 1)",
    "a sympified list": "S([1])",
    "a sympified name": "S(S)",
    "a call of a call": "sqrt(4)(5)",
    "a call of a number": "1(2)",
}


def test_there_is_an_attack_of_each_kind():
    assert len(set(ATTACKS.values())) == len(ATTACKS) > 100


@pytest.mark.parametrize("name", EVALUATING)
@pytest.mark.parametrize("attack", [*ATTACKS.values()], ids=[*ATTACKS])
def test_attacks_are_refused_in_a_line(name, attack):
    reason = fault(name, attack)
    assert name in reason
    assert len(reason) < 400
    assert reason.isprintable()


IN_EXPRESSIONS = [
    "exp(exp(exp(exp(x))))",
    "E**E**E**E**E**E**x",
    "x**99999999",
    "(x+C)**9999",
    "((x+1)**99)**99",
    "x**(10**8)",
    "x(x+1)",
    "C(1)",
    "2x",
    "x.diff(x)",
    "x.__class__",
    "x._eval_expand_func",
    "x if x else 1",
    "x[0]",
    "x!",
    "x^2",
    "x|1",
    "Integral(x, x)",
    "diff(x, x)",
    "integrate(sin(x)/x)",
    "Piecewise((x, True))",
    "__x",
    "x__",
    "xx",
    "log(x, 10, 2)",
    "log(x, print(1))",
    "x**log(10**9, 2)**9",
    "Pow(x, 99999999)",
    "Pow(x + 1, 2)**999",
    "root(x, 1/9999)",
    "root(x, 2, 1)",
    "sin(x, 2)",
    "S(x)",
    "Integer(x)",
    "Pow(exp(exp(exp(9))), x)",
    "sin x",
    "sin",
    "{x}",
    "x = 1",
    "lambda x: x",
    "ｘ",
    "$x$",
    "\\frac{x}{2}",
]


@pytest.mark.parametrize("name", IN_VARIABLES)
@pytest.mark.parametrize("answer", IN_EXPRESSIONS)
def test_invalid_expression_is_refused(name, answer):
    assert fault(name, answer)


@pytest.mark.parametrize("name", EVALUATING)
def test_code_in_an_answer_does_not_run(name, tmp_path):
    target = tmp_path / "pwned"
    codes = [f"open({str(target)!r}, 'w')", f"[open({str(target)!r}, 'w')]"]
    for code in codes:
        verdict = ReasoningGymVerifier().verify(make_gym_entry(name)[2], f"<answer>{code}</answer>")
        assert (verdict.status, verdict.reward, verdict.success) == ("unparseable", 0, False)
        assert f"is no answer that {name} reads" in verdict.reason
    assert not target.exists()


def test_composite_is_checked_as_the_entrys_data_set():
    entry = make_gym_entry("n_queens")[1]
    assert "n_queens" in answer_fault("composite", "print(1)", entry)
    assert answer_fault("composite", entry["answer"], entry) is None
