"""Fills in hostile templates: `python -m tests.agents.hostile_templates`, a process whose memory and time have an end.

Writes what became of each as JSON: the error's type and text, or how many characters were written.
"""

import json
import resource
import sys

from jinja2 import TemplateError

from rollmill.agents.templates import AgentTemplate

DOUBLED = "{% set ns = namespace(s=" + "SEED) %}{% for i in range(60) %}{% set ns.s = DOUBLE %}{% endfor %}{{ ns.s }}"


def doubled(seed, double):
    return DOUBLED.replace("SEED", seed).replace("DOUBLE", double)


CODE = [
    "{{ cycler.__init__.__globals__.os.system('touch pwned') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__['__builtins__'] }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ (1).__class__.__base__.__subclasses__() }}",
    "{{ x | attr('__class__') | attr('__mro__') }}",
    "{{ x.format.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(x) }}",
    "{{ [x] | map(attribute='__class__.__mro__') | first | length }}",
    "{% set own = x.__class__ %}{{ own }}",
    "{{ range.__globals__ }}",
    "{% for i in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__.os }}",
    "{{ [1].append(2) }}",
    "{{ dict(a=1).update(b=2) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import system %}",
    "{% extends 'base' %}",
]
ENDLESS = [
    "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
    "{% for a in range(100000) if a in range(100000) | list %}{% endfor %}",
    "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{% for i in range(1000) recursive %}{% if loop.depth < 20 %}{{ loop(range(1000)) }}{% endif %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}",
    "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "{% for i in range(100000) %}{% if 'y' in x %}{% endif %}{% endfor %}",
    "{% for i in range(100000) %}{% set y = x[1:] %}{% endfor %}",
    "{% for i in range(100000) %}{{ x | length }}{% endfor %}",
    "{% for i in range(100000) %}{% if x is upper %}{% endif %}{% endfor %}",
    "{% for i in range(100000) %}" + "A" * 50_000 + "{% endfor %}",
    "{% filter upper %}{% for i in range(100000) %}{{ x }}{% endfor %}{% endfilter %}",
    "{{ range(100000) | map('string') | map('upper') | list | length }}" * 100,
]
MANY = "{% set b = range(100000) | list %}{% set t = (1,) * 100000 %}{% set d = {t: 1} %}{% for i in range(3000) %}"
UNPAID = [
    MANY + "{% if -1 is in b %}{% endif %}{% endfor %}",
    MANY + "{% if b is eq b %}{% endif %}{% endfor %}",
    MANY + "{% if -1 in d.items() %}{% endif %}{% if -1 in {'a': b}.values() %}{% endif %}{% endfor %}",
    MANY + "{{ d[t] }}{% endfor %}",
    MANY + "{{ d.get(t) }}{% endfor %}",
    MANY + "{{ cycler(*b) is none }}{% endfor %}",
    MANY + "{{ namespace(d) is none }}{% endfor %}",
    MANY + "{{ loop.cycle(*b) }}{% endfor %}",
    MANY + "{% if loop.changed(b) %}{% endif %}{% endfor %}",
    "{% macro m() %}{% if varargs %}{% endif %}{% endmacro %}" + MANY + "{{ m(*b) }}{% endfor %}",
    "{{ range(3000) | map('abs') | map('float') | select('in', ['q'] * 100000) | list | length }}",
    "{{ range(3000) | list | reject('in', range(100000) | list) | list | length }}",
    "{{ ([{'a': -1}] * 3000) | selectattr('a', 'in', range(100000) | list) | list | length }}",
    "{{ ([{'a': -1}] * 3000) | rejectattr('a', 'in', range(100000) | list) | list | length }}",
    "{{ ('a' * 320000).rfind('ab' ~ 'a' * 160000) }}",
    "{{ ('a' * 320000).rindex('ab' ~ 'a' * 160000) }}",
    "{{ ('a' * 320000).rsplit('ab' ~ 'a' * 160000) }}",
    "{{ ('a' * 320000).rsplit(sep='ab' ~ 'a' * 160000, maxsplit=-1) }}",
    "{{ ('a' * 320000).rpartition('ab' ~ 'a' * 160000) }}",
    "{{ ('x' * 300000).strip('y' * 300000 ~ 'x') }}",
    "{{ ('x' * 300000).lstrip('y' * 300000 ~ 'x') }}",
    "{{ ('x' * 300000).rstrip('y' * 300000 ~ 'x') }}",
    "{{ ('x' * 300000) | trim('y' * 300000 ~ 'x') }}",
    "{{ ('x' * 300000) | trim(chars='y' * 300000 ~ 'x') }}",
    "{{ ('x' * 300000) | wordwrap(1) }}",
    "{{ ('x' * 1000000) | wordwrap }}",
    "{{ (' ' * 900000) | wordwrap(20) }}",
    "{{ range(2000) | list | sort(attribute='real,' * 2000 ~ 'real') }}",
    "{{ range(2000) | list | sort(false, false, 'real,' * 2000 ~ 'real') }}",
    "{{ range(2000) | list | map(attribute='real.' * 2000 ~ 'real') | list }}",
    "{{ range(2000) | list | sum('real.' * 2000 ~ 'real') }}",
    "{{ range(2000) | list | unique(attribute='real.' * 2000 ~ 'real') | list }}",
    "{{ range(2000) | list | groupby('real.' * 2000 ~ 'real') }}",
    "{{ range(2000) | list | max(attribute='real.' * 2000 ~ 'real') }}",
    "{{ range(2000) | list | join(',', 'real.' * 2000 ~ 'real') }}",
    "{{ range(2000) | list | selectattr('real.' * 2000 ~ 'real') | list }}",
    "{{ range(90000) | list | map(attribute='real.' * 39 ~ 'real') | list }}",
    "{% set b = 7 ** 7000 %}{% set c = 7 ** 3000 %}{% for i in range(90000) %}{% set a = b // c %}{% endfor %}" * 4,
    "{% set b = 7 ** 4000 %}{% for i in range(90000) %}{% set a = b | string %}{% endfor %}" * 4,
    "{% set a = 'a' * 2499 %}{% set b = 'a' * 600 ~ 'b' ~ 'a' * 600 %}{% for i in range(90000) %}"
    "{% if b in a %}{% endif %}{% endfor %}",
]
LARGE = [
    "{{ 'x' * 10**10 }}",
    "{{ 10**10 * 'x' }}",
    "{{ [1] * 10**10 }}",
    "{{ (7**99999)**99999 }}",
    doubled("'x'", "ns.s ~ ns.s"),
    doubled("'x'", "ns.s + ns.s"),
    doubled("['x']", "ns.s + ns.s"),
    doubled("['x']", "[ns.s, ns.s]"),
    doubled("('x',)", "(ns.s, ns.s)"),
    doubled("{}", "{'a': ns.s, 'b': ns.s}"),
    doubled("{}", "dict(a=ns.s, b=ns.s)"),
    doubled("namespace()", "namespace(a=ns.s, b=ns.s)"),
    doubled("3", "ns.s * ns.s"),
    doubled("'x'", "ns.s | replace('x', 'xx')"),
    doubled("'x'", "[ns.s, ns.s] | join"),
    doubled("'%s%s'", "ns.s % (ns.s, ns.s)"),
    "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set t %}{{ ns.s }}{{ ns.s }}{% endset %}"
    "{% set ns.s = t %}{% endfor %}{{ ns.s }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%.999999999f' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%.*f' % (999999999, 1) }}",
    "{{ '%" + " " * 40 + "999999999d' % 1 }}",
    "{{ '%(a)0999999999d' % {'a': 1} }}",
    "{{ '%(a(b)c)-999999999d' % {'a(b)c': 1} }}",
    "{{ '%5.999999999f' % 1 }}",
    "{{ '%#+00.999999999f' % 1 }}",
    "{{ ('%' ~ '9' ~ '99999999d') % 1 }}",
    "{{ '%999999999s' | format(x) }}",
    "{{ '%0999999999d' | format(1) }}",
    "{{ '%0999999999d' is odd }}{{ '%0999999999d' is divisibleby(1) }}" + "{{ 1 / 0 }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ '{a:999999999}'.format_map({'a': 1}) }}",
    "{{ 'x'.ljust(10**10) }}",
    "{{ 'x'.zfill(10**10) }}",
    "{{ 'x' | center(10**10) }}",
    "{{ '\t'.expandtabs(10**10) }}",
    "{{ 'x' | indent(10**10, true) }}",
    "{{ x | indent(x, true, true) | indent(x, true) }}" * 60,
    "{{ [1] | batch(10**10, 'x') | list }}",
    "{{ [1] | slice(10**10) | list }}",
    "{{ 1.5 | round(10**9, 'ceil') }}",
    "{{ x | tojson(indent=10**9) }}",
    "{{ ('%s' * 100000) % x }}",
    "{{ ('%(a)s' * 100000) % {'a': x} }}",
    "{{ x.replace('x', x) }}",
    "{{ x | replace('', x) }}",
    "{{ range(100000) | join(x) }}",
    "{{ x.join(range(100000) | map('string')) }}",
    "{{ ('a b ' * 100000) | wordwrap(1, wrapstring=x) }}",
    "{{ [x] | sum(start=[]) }}",
    "{{ lipsum(10**9) }}",
]
DEEP = [
    "{{ " + "(" * 40_000 + "1" + ")" * 40_000 + " }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ " + "-" * 90_000 + "1 }}",
    "{{ " + "1+" * 40_000 + "1 }}",
    "{{ x" + "|upper" * 15_000 + " }}",
    "{% if 1 %}" * 500 + "{% endif %}" * 500,
    "{% for i in [1] %}" * 50 + "{% endfor %}" * 50,
    "x" * 100_001,
    "".join(f"{{%set a{n}=1%}}" for n in range(2500)) + "{%if x%}{%endif%}" * 2800,
]
ALL = [*CODE, *ENDLESS, *UNPAID, *LARGE, *DEEP]


def outcome(template):
    try:
        return ["written", len(AgentTemplate(template).render(x="x" * 1_000_000))]
    except TemplateError as error:
        return [type(error).__name__, str(error.message)]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
    json.dump([outcome(template) for template in ALL], sys.stdout)
