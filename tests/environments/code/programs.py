"""Programs that pass their tests in plain Python, and programs that cheat."""

# ruff: noqa: E501 - a line of a program that is long is a line of the table

from __future__ import annotations

PLAIN: dict[str, tuple[str, str]] = {
    "dataclass": (
        "from dataclasses import dataclass, field\n"
        "@dataclass\nclass P:\n    x: int\n    y: int = 0\n    tags: list = field(default_factory=list)\n"
        "    def norm(self): return self.x + self.y\n"
        "def f(x): return P(x, 1)\n",
        "from dataclasses import asdict, astuple, is_dataclass, replace\n"
        "assert f(2) == P(2, 1) and f(2) != P(2, 2) and f(2) != (2, 1, [])\n"
        "assert f(2).x == 2 and f(2).norm() == 3\n"
        "assert repr(f(2)) == 'P(x=2, y=1, tags=[])'\n"
        "assert asdict(f(2)) == {'x': 2, 'y': 1, 'tags': []} and astuple(P(5)) == (5, 0, [])\n"
        "assert is_dataclass(P) and replace(f(2), y=7) == P(2, 7)\n"
        "p = f(1)\np.x = 9\nassert p == P(9, 1) and vars(p)['x'] == 9\n"
        "assert isinstance(p, P) and type(p) is P and type(p).__name__ == 'P'\n",
    ),
    "frozen and ordered dataclass": (
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True, order=True)\nclass V:\n    n: int\n"
        "def f(*n): return sorted(map(V, n))\n",
        "from dataclasses import FrozenInstanceError\n"
        "assert f(3, 1, 2) == [V(1), V(2), V(3)] and max(f(3, 1)) == V(3) and V(1) < V(2)\n"
        "assert len({V(1), V(1), V(2)}) == 2 and {V(1): 'a'}[V(1)] == 'a'\n"
        "try: f(1)[0].n = 5\nexcept FrozenInstanceError as error: assert 'n' in str(error)\nelse: assert False\n",
    ),
    "dataclass with annotations of the future": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Node:\n    value: int\n    next: Node | None = None\n"
        "def f(n): return Node(n, Node(n + 1))\n",
        "assert f(1).next.value == 2 and f(1) == Node(1, Node(2)) and f(1).next.next is None\n",
    ),
    "no annotations of the future where none are asked for": (
        "def f(x: int) -> 1 + 1: return f.__annotations__['return']\n",
        "assert f(0) == 2\n",
    ),
    "future statement of the tests": (
        "def f(x): return x",
        "from __future__ import annotations\ndef g(x: Unknown) -> Unknown: return f(x)\nassert g(3) == 3\n",
    ),
    "pickle": (
        "import pickle\nclass P:\n    def __init__(self, x): self.x = x\n    def __eq__(self, o): return self.x == o.x\n"
        "def f(x):\n    return pickle.loads(pickle.dumps(P(x)))\n"
        "def g(x):\n    return pickle.loads(pickle.dumps(P(x)).replace(b'solution', b'__main__')).x\n",
        "assert f(3) == P(3) and f(3).x == 3 and not f(3) == P(4)\n",
    ),
    "pickle of __main__": (
        "import pickle\nclass P:\n    x = 7\ndef f(): return pickle.loads(b'c__main__\\nP\\n.').x\n",
        "assert f() == 7\n",
    ),
    "copy": (
        "import copy\nclass P:\n    def __init__(self, items): self.items = items\ndef f(p): return copy.deepcopy(p)\n",
        "import copy\np = P([1, 2])\nq = f(p)\nassert q.items == p.items and q is not p\n"
        "r = copy.deepcopy(p)\nassert r.items == [1, 2] and r is not p\n",
    ),
    "deque": (
        "from collections import deque\ndef f(*items): return deque(items, maxlen=3)\ndef g(queue): queue.rotate(1)\n",
        "from collections import deque\nassert f(1, 2) == deque([1, 2]) and f(1, 2, 3, 4).maxlen == 3\n"
        "assert isinstance(f(), deque) and f(1) != [1]\nq = deque([1, 2, 3])\nq_ = q\ng(q)\n"
        "assert q == deque([3, 1, 2]) and q is q_\n",
    ),
    "date": (
        "from datetime import date, datetime, timedelta, timezone\n"
        "def f(y): return date(y, 1, 31) + timedelta(days=1)\n"
        "def g(d): return d - timedelta(hours=1)\n",
        "from datetime import date, datetime, timedelta, timezone\n"
        "assert f(2024) == date(2024, 2, 1) and f(2024).isoformat() == '2024-02-01' and f(1) < date(2, 1, 1)\n"
        "assert g(datetime(2024, 1, 1, tzinfo=timezone.utc)) == datetime(2023, 12, 31, 23, tzinfo=timezone.utc)\n"
        "assert f(2024) - f(2023) == timedelta(365)\n",
    ),
    "Counter, defaultdict, OrderedDict": (
        "from collections import Counter, OrderedDict, defaultdict\ndef f(text): return Counter(text)\n"
        "def g(pairs):\n    d = defaultdict(list)\n    for a, b in pairs: d[a].append(b)\n    return d\n"
        "def h(d):\n    d = OrderedDict(d)\n    d.move_to_end('a')\n    return d\n"
        "def count(c): c['new'] += 1\n",
        "from collections import Counter, OrderedDict\n"
        "assert f('aab') == Counter(a=2, b=1) == {'a': 2, 'b': 1} and f('aab').most_common(1) == [('a', 2)]\n"
        "assert f('a')['z'] == 0 and isinstance(f(''), Counter) and f('ab') + f('a') == Counter(a=2, b=1)\n"
        "d = g([('a', 1), ('a', 2)])\nassert d == {'a': [1, 2]} and d['new'] == []\n"
        "assert h({'a': 1, 'b': 2}) == OrderedDict([('b', 2), ('a', 1)]) and list(h({'a': 1, 'b': 2})) == ['b', 'a']\n"
        "c = Counter()\ncount(c)\nassert c['new'] == 1\n",
    ),
    "own __eq__": (
        "class Rational:\n"
        "    def __init__(self, p, q): self.p, self.q = p, q\n"
        "    def __eq__(self, other):\n"
        "        return isinstance(other, Rational) and self.p * other.q == self.q * other.p\n"
        "    def __hash__(self): return hash(self.p / self.q)\n"
        "    def __repr__(self): return f'{self.p}/{self.q}'\n"
        "    def __add__(self, other): return Rational(self.p * other.q + other.p * self.q, self.q * other.q)\n"
        "    def __mul__(self, n): return Rational(self.p * n, self.q)\n"
        "    __rmul__ = __mul__\n"
        "    def __lt__(self, other): return self.p * other.q < other.p * self.q\n"
        "def f(p, q): return Rational(2 * p, 2 * q)\n",
        "assert f(1, 2) == Rational(1, 2) and f(1, 2) != Rational(1, 3) and not f(1, 2) == 'half'\n"
        "assert f(1, 2) in [Rational(3, 4), Rational(1, 2)] and len({f(1, 2), Rational(1, 2)}) == 1\n"
        "assert repr(f(1, 2)) == '2/4' and f'{f(1, 2)}' == '2/4'\n"
        "assert f(1, 2) + f(1, 3) == Rational(5, 6) and f(1, 2) * 2 == Rational(1, 1) == 2 * f(1, 2)\n"
        "assert sorted([f(1, 2), f(1, 3)])[0] == f(1, 3) and f(1, 3) < f(1, 2)\n",
    ),
    "vector": (
        "class V:\n"
        "    def __init__(self, *c): self.c = c\n"
        "    def __eq__(self, o): return self.c == o.c\n"
        "    def __abs__(self): return sum(x * x for x in self.c) ** 0.5\n"
        "    def __neg__(self): return V(*(-x for x in self.c))\n"
        "    def __sub__(self, o): return V(*(a - b for a, b in zip(self.c, o.c)))\n"
        "    def __mul__(self, n): return V(*(x * n for x in self.c))\n"
        "    def __matmul__(self, o): return sum(a * b for a, b in zip(self.c, o.c))\n"
        "    def __len__(self): return len(self.c)\n"
        "    def __getitem__(self, i): return self.c[i]\n"
        "    def __iter__(self): return iter(self.c)\n"
        "    def __contains__(self, x): return x in self.c\n"
        "    def __bool__(self): return any(self.c)\n"
        "    def __call__(self, x): return V(x)\n",
        "v = V(3, 4)\nassert abs(v) == 5.0 and -v == V(-3, -4) and v - V(1, 1) == V(2, 3) and v @ v == 25\n"
        "assert (v * 2)[0] == 6 if False else (v * 2).c == (6, 8)\n"
        "assert len(v) == 2 and v[1] == 4 and v[-1] == 4 and v[:1] == (3,) and list(v) == [3, 4] and 3 in v\n"
        "assert 5 not in v and v and not V(0) and v(8) == V(8)\na, b = v\nassert (a, b) == (3, 4)\n",
    ),
    "callables of the tests": (
        "from functools import reduce, wraps\n"
        "def f(function, items): return [function(each) for each in items]\n"
        "def compose(*fs): return lambda x: reduce(lambda y, g: g(y), fs, x)\n"
        "def logged(function):\n"
        "    @wraps(function)\n    def inner(*a, **k): return ('called', function(*a, **k))\n    return inner\n"
        "def ordered(items, key): return sorted(items, key=key, reverse=True)\n"
        "def each(items, callback):\n    for item in items: callback(item)\n",
        "assert f(lambda x: x * 2, [1, 2]) == [2, 4] and f(str, [1]) == ['1'] and f(len, ['ab']) == [2]\n"
        "assert compose(lambda x: x + 1, lambda x: x * 10)(1) == 20\n"
        "@logged\ndef add(a, *, b): return a + b\n"
        "assert add(1, b=2) == ('called', 3) and add.__name__ == 'add'\n"
        "assert ordered(['a', 'ccc', 'bb'], key=len) == ['ccc', 'bb', 'a'] == ordered(['a', 'ccc', 'bb'], lambda s: len(s))\n"
        "seen = []\neach([1, 2], seen.append)\nassert seen == [1, 2]\n"
        "class Box:\n    def __init__(self, n): self.n = n\n    def __call__(self, x): return self.n + x\n"
        "assert f(Box(5), [1]) == [6]\n"
        "def bad(x): raise KeyError(x)\n"
        "try: f(bad, [3])\nexcept KeyError as error: assert error.args == (3,)\nelse: assert False\n",
    ),
    "callables of the code": (
        "from functools import partial\n"
        "def f(n):\n    def inner(x): 'adds'; return x + n\n    return inner\n"
        "def g(n): return partial(pow, n)\n"
        "class Counter_:\n    def __init__(self): self.n = 0\n    def __call__(self): self.n += 1; return self.n\n",
        "assert f(2)(3) == 5 and callable(f(2)) and f(2).__name__ == 'inner' and f(2).__doc__ == 'adds'\n"
        "assert g(2)(3) == 8 and list(map(f(1), [1, 2])) == [2, 3]\n"
        "c = Counter_()\nassert [c(), c()] == [1, 2] and c.n == 2 and callable(c) and not callable(c.n)\n",
    ),
    "iterators and objects of the tests": (
        "def f(items): return [each for each in items]\n"
        "def area(shapes): return sum(shape.area() for shape in shapes)\n"
        "def grow(box): box.size += 1; return box\n",
        "assert f(n * n for n in range(3)) == [0, 1, 4] == f(iter([0, 1, 4])) == f(map(int, '014'))\n"
        "class Shape:\n    def area(self): return 4\n"
        "assert area([Shape(), Shape()]) == 8\n"
        "class Box:\n    size = 1\nbox = Box()\nassert grow(box) is box and box.size == 2\n",
    ),
    "captured stdout": (
        "import sys\ndef f(name):\n    print('Hello,', name)\n    sys.stdout.write('bye\\n')\n    return len(name)\n",
        "import contextlib, io, sys\n"
        "out = io.StringIO()\nwith contextlib.redirect_stdout(out): n = f('Ann')\n"
        "assert out.getvalue() == 'Hello, Ann\\nbye\\n' and n == 3\n"
        "old, sys.stdout = sys.stdout, io.StringIO()\nf('Bö')\ntext, sys.stdout = sys.stdout.getvalue(), old\n"
        "assert text.splitlines()[0] == 'Hello, Bö'\n",
    ),
    "stdin": (
        "import sys\ndef f():\n    n = int(input('n? '))\n    return sum(int(input()) for _ in range(n)), sys.stdin.read()\n"
        "def g(): return [line.strip() for line in sys.stdin]\n"
        "def h(): return input('name: ')\n",
        "import io, sys\nfrom unittest.mock import patch\n"
        "sys.stdin = io.StringIO('2\\n3\\n4\\nrest\\n')\nassert f() == (7, 'rest\\n')\n"
        "sys.stdin = io.StringIO('a\\nb\\n')\nassert g() == ['a', 'b']\n"
        "with patch('builtins.input', return_value='Ann') as asked: assert h() == 'Ann'\n"
        "asked.assert_called_once_with('name: ')\n",
    ),
    "enum": (
        "from enum import Enum, IntEnum, Flag, auto\n"
        "class Color(Enum):\n    RED = 'red'\n    BLUE = 'blue'\n    @property\n    def hot(self): return self is Color.RED\n"
        "class Level(IntEnum):\n    LOW = 1\n    HIGH = 2\n"
        "class Bit(Flag):\n    A = auto()\n    B = auto()\n"
        "def f(name): return Color[name]\n",
        "assert f('RED') == Color.RED and f('RED') is Color.RED and f('RED') != Color.BLUE and f('RED') != 'red'\n"
        "assert f('RED').value == 'red' and f('RED').name == 'RED' and Color('blue') is Color.BLUE and f('RED').hot\n"
        "assert [c.name for c in Color] == ['RED', 'BLUE'] and len(Color) == 2 and isinstance(f('RED'), Color)\n"
        "assert str(f('RED')) == 'Color.RED' and repr(f('RED')) == \"<Color.RED: 'red'>\" and Color.RED in Color\n"
        "assert Level.HIGH > Level.LOW and Level.HIGH == 2 and Level(1) is Level.LOW and Level.LOW + 1 == 2\n"
        "assert {Color.RED: 1}[Color['RED']] == 1 and sorted(Level) == [1, 2] and list(Color.__members__) == ['RED', 'BLUE']\n"
        "assert Bit.A | Bit.B == Bit(3) and Bit.A in (Bit.A | Bit.B)\n"
        "try: Color('green')\nexcept ValueError as error: assert 'green' in str(error)\nelse: assert False\n",
    ),
    "namedtuple": (
        "from collections import namedtuple\nfrom typing import NamedTuple\nP = namedtuple('P', 'x y')\n"
        "class Q(NamedTuple):\n    a: int\n    b: str = 'z'\n    def both(self): return f'{self.a}{self.b}'\n"
        "def f(x): return P(x, 2)\ndef g(a): return Q(a)\n",
        "assert f(1) == (1, 2) == P(1, 2) and f(1).x == 1 and f(1)[1] == 2 and f(1)._asdict() == {'x': 1, 'y': 2}\n"
        "assert g(1) == (1, 'z') and g(1).both() == '1z' and g(1)._replace(b='c') == (1, 'c') and isinstance(g(1), tuple)\n"
        "x, y = f(5)\nassert x == 5 and P._fields == ('x', 'y') and repr(f(1)) == 'P(x=1, y=2)' and hash(f(1)) == hash((1, 2))\n"
        "assert isinstance(f(1), P) and {f(1): 3}[(1, 2)] == 3 and f(1) < (2, 0)\n",
    ),
    "abc and multiple inheritance": (
        "from abc import ABC, abstractmethod\n"
        "class Shape(ABC):\n    @abstractmethod\n    def area(self): ...\n    def twice(self): return 2 * self.area()\n"
        "class Named:\n    def __init__(self, name): self.name = name\n    def who(self): return self.name\n"
        "class Square(Named, Shape):\n    def __init__(self, n): super().__init__('square'); self.n = n\n"
        "    def area(self): return self.n ** 2\n"
        "def f(n): return Square(n)\n",
        "assert f(3).twice() == 18 and f(3).who() == 'square' and isinstance(f(3), Shape) and issubclass(Square, Named)\n"
        "assert not isinstance(f(3), int) and [k.__name__ for k in Square.__mro__][:3] == ['Square', 'Named', 'Shape']\n"
        "assert hasattr(f(3), 'area') and not hasattr(f(3), 'volume') and getattr(f(3), 'volume', None) is None\n"
        "try: Shape()\nexcept TypeError as error: assert 'abstract' in str(error)\nelse: assert False\n",
    ),
    "cache": (
        "from functools import cache, lru_cache\n@lru_cache(maxsize=None)\n"
        "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)\n@cache\ndef g(x): return [x]\n",
        "assert f(30) == 832040 and f.cache_info().hits > 0 and f.cache_info().currsize == 31\n"
        "f.cache_clear()\nassert f.cache_info().currsize == 0 and g(1) == [1] and f.__wrapped__(1) == 1\n",
    ),
    "generators": (
        "def f(n):\n    for i in range(n): yield i\n    return 'end'\n"
        "def echo():\n    got = None\n    while True: got = yield got\n",
        "import inspect, types\nfrom collections.abc import Iterator\nassert list(f(3)) == [0, 1, 2] and sum(f(4)) == 6\n"
        "g = f(1)\nassert iter(g) is g and next(g) == 0\n"
        "try: next(g)\nexcept StopIteration as end: assert end.value == 'end'\nelse: assert False\n"
        "assert isinstance(f(1), types.GeneratorType) and inspect.isgenerator(f(1)) and isinstance(f(1), Iterator)\n"
        "e = echo()\nnext(e)\nassert e.send(5) == 5\ne.close()\nassert next(f(0), 'none') == 'none'\n",
    ),
    "main": (
        "import sys\ndef f(x): return x + 1\nif __name__ == '__main__':\n    print(f(int(input())))\n    sys.exit(1)\n",
        "assert f(1) == 2\n",
    ),
    "inspect.getsource": (
        "import inspect\ndef f(): return inspect.getsource(g)\ndef g():\n    return 1\n\nclass P:\n    x = 1\n\n"
        "def h(): return inspect.getsource(P)\n",
        "import inspect\nassert f() == 'def g():\\n    return 1\\n' == inspect.getsource(g) and h() == 'class P:\\n    x = 1\\n'\n",
    ),
    "values": (
        "from decimal import Decimal\nfrom fractions import Fraction\ndef f(x): return x\n",
        "from decimal import Decimal\nfrom fractions import Fraction\nimport math\n"
        "for v in (1 + 2j, Decimal('1.10'), Fraction(1, 3), {1, 2}, frozenset('ab'), b'x', bytearray(b'y'), -0.0, None, ..., "
        "range(2), slice(1, 2), {'b': 1, 'a': 2}, [(1, {2: {3}})], 10 ** 40, float('inf'), int, ValueError, len):\n"
        "    assert f(v) == v and type(f(v)) is type(v)\n"
        "assert math.isnan(f(float('nan'))) and list(f({'b': 1, 'a': 2})) == ['b', 'a'] and f(Ellipsis) is ...\n"
        "x = [1]\nassert f(x) is x and f(True) is True and str(f(Decimal('1.10'))) == '1.10'\n",
    ),
    "subclasses of built-in types": (
        "class Stack(list):\n    def push(self, x): self.append(x); return self\n    @property\n    def top(self): return self[-1]\n"
        "class Upper(str):\n    def shout(self): return Upper(self + '!')\n"
        "class Bag(dict):\n    def __missing__(self, key): return 0\n"
        "class Meters(float):\n    unit = 'm'\n"
        "def f(x): return Stack().push(x)\n",
        "s = f(1)\nassert s == [1] and s.top == 1 and isinstance(s, list) and isinstance(s, Stack)\ns.push(2)\n"
        "assert s == [1, 2] and len(s) == 2 and s[0] == 1 and [*s] == [1, 2]\ns.append(3)\ns[0] = 9\ndel s[1]\n"
        "assert s == [9, 3] and s.pop() == 3 and s == [9] and sorted(s) == [9]\n"
        "assert Upper('A').shout() == 'A!' and Upper('a').upper() == 'A' and f'{Upper(\"q\")}' == 'q'\n"
        "b = Bag(a=1)\nassert b['zz'] == 0 and b == {'a': 1}\nb['c'] = 3\nassert b['c'] == 3\n"
        "assert Meters(2.5) + 1 == 3.5 and Meters(1).unit == 'm' and round(Meters(2.6)) == 3\n",
    ),
    "exceptions": (
        "class Poor(ValueError):\n    def __init__(self, balance):\n        super().__init__(f'only {balance}')\n"
        "        self.balance = balance\n"
        "class Odd(Exception): pass\n"
        "def f(x):\n    if x > 5: raise Poor(5)\n    if x < 0: raise Odd('negative', x)\n    return {}[x]\n"
        "import json\ndef g(text): return json.loads(text)\n",
        "import json\n"
        "try: f(9)\nexcept Poor as error: assert error.balance == 5 and str(error) == 'only 5' and isinstance(error, ValueError)\n"
        "else: assert False\n"
        "try: f(-1)\nexcept Odd as error: assert error.args == ('negative', -1) and type(error) is Odd\nelse: assert False\n"
        "try: f(3)\nexcept KeyError as error: assert str(error) == '3' and type(error) is KeyError\nelse: assert False\n"
        "try: g('{')\nexcept json.JSONDecodeError: pass\nelse: assert False\n",
    ),
    "context manager, properties, class state": (
        "class Account:\n    count = 0\n    def __init__(self): Account.count += 1; self._n = 0; self.open = False\n"
        "    def __enter__(self): self.open = True; return self\n"
        "    def __exit__(self, kind, error, trace): self.open = False; self.seen = kind; return kind is KeyError\n"
        "    @property\n    def n(self): return self._n\n    @n.setter\n    def n(self, v):\n"
        "        if v < 0: raise ValueError('negative')\n        self._n = v\n"
        "    @classmethod\n    def make(cls): return cls()\n    @staticmethod\n    def kind(): return 'account'\n",
        "a = Account.make()\nassert Account.count == 1 and Account.kind() == 'account'\na.n = 5\nassert a.n == 5 and a._n == 5\n"
        "try: a.n = -1\nexcept ValueError as error: assert str(error) == 'negative'\nelse: assert False\n"
        "with a as b: assert b is a and a.open\nassert not a.open\n"
        "with a: raise KeyError('x')\nassert a.seen is KeyError\nb = Account()\nassert Account.count == 2 and a != b and a == a\n",
    ),
    "module state that tests read": (
        "total = 0\nseen = []\ndef f(x):\n    global total\n    total += x\n    seen.append(x)\n    return total\n",
        "assert total == 0 and f(1) == 1 and f(2) == 3 and total == 3 and seen == [1, 2]\n"
        "def check(candidate):\n    before = total\n    candidate(4)\n    assert total == before + 4 and seen[-1] == 4\n",
    ),
    "captured stderr": (
        "import sys\ndef f(name):\n    print('warning', name, file=sys.stderr)\n    print(name)\n",
        "import contextlib, io\nout, errors = io.StringIO(), io.StringIO()\n"
        "with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors): f('Ann')\n"
        "assert out.getvalue() == 'Ann\\n' and errors.getvalue() == 'warning Ann\\n'\n",
    ),
    "causes of exceptions": (
        "class Own(Exception): pass\n"
        "def f(kind):\n    try: return 1 / 0\n    except ZeroDivisionError as error: raise kind('x') from error\n"
        "def g(): f(Own)\n",
        "for call in (g, lambda: f(RuntimeError)):\n"
        "    try: call()\n    except (Own, RuntimeError) as error: assert isinstance(error.__cause__, ZeroDivisionError)\n"
        "    else: assert False\n",
    ),
    "functools.wraps on a function of the tests": (
        "import functools\ndef f(function):\n    @functools.wraps(function)\n    def inner(*a):\n        inner.calls += 1\n"
        "        return function(*a)\n    inner.calls = 0\n    return inner\n",
        "@f\ndef add(a, b):\n    'Adds.'\n    return a + b\n"
        "assert add(1, 2) == 3 and add.calls == 1 and add.__name__ == 'add' and add.__doc__ == 'Adds.'\n",
    ),
    "names that tests only mention": (
        "import math\nLIMIT = 3\nclass Bad(Exception): pass\ndef f(x):\n    if x > LIMIT: raise Bad\n    return math.sqrt(x)\n",
        "assert f(LIMIT) == math.sqrt(3)\ntry: f(4)\nexcept Bad: pass\nelse: assert False\n",
    ),
}
"""Code and tests by the features that they use; all pass if the tests follow the code in one file."""

CHEATS: dict[str, tuple[str, str]] = {
    "equal to everything": ("class A:\n    def __eq__(self, o): return True\ndef f(x): return A()", "assert f(1) == 2"),
    "a class equal to everything": (
        "class P:\n    def __init__(self, *a): pass\n    def __eq__(self, o): return True\ndef f(x): return P()",
        "assert f(1) == P(3, 4)",
    ),
    "equal to all of its class": (
        "class P:\n    def __init__(self, *a): pass\n    def __eq__(self, o): return isinstance(o, P)\n"
        "def f(x): return P()",
        "assert f(1) == P(3, 4)",
    ),
    "equal to all of its class, the other way round": (
        "class P:\n    def __init__(self, *, x): self.x = x\n    def __eq__(self, o): return isinstance(o, P)\n"
        "def f(x): return P(x=0)",
        "assert P(x=3) == f(1)",
    ),
    "a number that is near everything": (
        "class A(float):\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\n    def __eq__(self, o): return True\n"
        "    def __lt__(self, o): return True\n    __hash__ = None\ndef f(x): return A(1e9)",
        "assert abs(f(1) - 2.0) < 1e-6",
    ),
    "an object whose difference is nothing": (
        "class A:\n    def __sub__(self, o): return 0.0\n    __rsub__ = __sub__\ndef f(x): return A()",
        "assert abs(f(1) - 2.0) < 1e-6",
    ),
    "an object whose difference is itself": (
        "class A:\n    def __sub__(self, o): return self\n    __rsub__ = __sub__\n    def __abs__(self): return 0.0\n"
        "    def __lt__(self, o): return True\n    __gt__ = __lt__\n    def __bool__(self): return False\n"
        "    __float__ = __abs__\n    def __round__(self, n=0): return 0.0\n    def __len__(self): return 0\n"
        "    def __call__(self, *a): return 0.0\n    def __getattr__(self, name): return self\ndef f(x): return A()",
        "if TRY == 0: assert abs(f(1) - 2.0) < 1e-6\nif TRY == 1: assert round(2.0 - f(1), 5) == 0\n"
        "if TRY == 2: assert not (f(1) - 2.0)\nif TRY == 3: assert float(f(1) - 2.0) == 0\n"
        "if TRY == 4: assert f(1) < 3\nif TRY == 5: assert 1 < f(1)\nif TRY == 6: assert (f(1) - 2).max() < 1e-6\n"
        "if TRY == 7: assert len(f(1) - 2) == 0\n",
    ),
    "holds everything": (
        "class A:\n    def __contains__(self, o): return True\ndef f(x): return A()",
        "assert 'abc' in f(1)",
    ),
    "a list that holds and equals everything": (
        "class A(list):\n    def __contains__(self, o): return True\n    def __eq__(self, o): return True\n"
        "    def __iter__(self): return iter([3])\n    __hash__ = None\ndef f(x): return A()",
        "if TRY < 4: assert 3 in f(1)\nelse: assert f(1) == [3]\n",
    ),
    "mock.ANY by import": (
        "import unittest.mock\ndef f(x): return unittest.mock.ANY",
        "assert f(1) == 2",
    ),
    "ANY in the tester's own words": (
        "import sys\nmirror = sys.modules['rollmill.environments.code.inside.mirror']\n"
        "mirror.Link.encode = lambda self, value: {'import': ['unittest.mock', 'ANY']}\ndef f(x): return 0",
        "assert f(1) == 2",
    ),
    "a class that says it is an int": (
        "class A: pass\nA.__name__ = A.__qualname__ = 'int'\nA.__module__ = 'builtins'\ndef f(x): return A()",
        "assert f(1) == 2",
    ),
    "equal by __class__": (
        "class A:\n    __class__ = int\n    def __eq__(self, o): return True\ndef f(x): return A()",
        "assert f(1) == 2",
    ),
    "other built-ins": (
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.sorted = lambda x, **k: [1]\nabs = sorted = len = lambda *a: 0\n"
        "def f(x): return [9]",
        "if TRY == 0: assert abs(f(1)[0]) == 0\nelse: assert sorted(f(1)) == [1]\n",
    ),
    "a namespace that compares": (
        "class np:\n    allclose = staticmethod(lambda *a, **k: True)\ndef f(x): return 0",
        "assert np.allclose(f(1), 2.0)",
    ),
    "a module that compares": (
        "import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 0",
        "if TRY: import math\nassert math.isclose(f(1), 2.0)",
    ),
    "looks for what it is to return": (
        "def f(key):\n    for look in (lambda: key.__globals__['SECRET'], lambda: key.__code__.co_consts[-1],\n"
        "                 lambda: key.__closure__[0].cell_contents, lambda: key.gi_frame.f_globals['SECRET']):\n"
        "        try: return look()\n        except Exception: pass\n    return 0",
        "SECRET = 4711\ndef key(x): return SECRET\nif TRY == 1: key = (SECRET for _ in '1')\nassert f(key) == SECRET\n",
    ),
    "asks for what it is to return": (
        "import sys\ndef f(key):\n    link = key._rollmill_link\n    index = key._rollmill_of\n"
        "    for do, args in (('getattr', ['__globals__']), ('special', ['__getattribute__', '__globals__']),\n"
        "                     ('names', [['SECRET']]), ('source', [])):\n"
        "        try: return link.request(do, key, tuple(args), {})['SECRET']\n        except Exception: pass\n    return 0",
        "SECRET = 4711\ndef key(x): return SECRET\nassert f(key) == SECRET\n",
    ),
    "sets the names of the tests": (
        "SECRET = w = error = 0\ndef f(x):\n    global SECRET, w, error\n    SECRET = w = error = 1\n    return 1\n",
        "if TRY < 3: SECRET = 5\nif TRY == 0: assert f(1) == SECRET\n"
        "def g(w): return f(1) == w\nif TRY == 1: assert g(2)\n"
        "try: 1 / 0\nexcept ZeroDivisionError as error: assert f(1) == error\n",
    ),
    "prints what the tests compare": (
        "import sys\ndef f(x): sys.stdout = None; print('4')",
        "import contextlib, io\nout = io.StringIO()\nwith contextlib.redirect_stdout(out): f(1)\nassert out.getvalue() == '5\\n'\n",
    ),
}
"""Code that does not solve the problem, and tests; none passes, whatever number `TRY` is."""
