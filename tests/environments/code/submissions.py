"""Code that is right, cheats or attacks, with its expected verdicts."""

from __future__ import annotations

from typing import Any

from rollmill.environments.code.checking import Case, CaseOutcome, Checker
from rollmill.environments.code.subject import Subject
from rollmill.environments.python_runs import SandboxedPython

TRUTH = "SECRET = 4711\ndef check(candidate):\n    assert candidate(1) == 2\n    assert candidate(SECRET) == 4712\n"
RIGHT = "def f(x):\n    return x + 1\n"

HOSTILE = {
    "exits at once": "import os\nos._exit(0)",
    "exits in a call": "import os\ndef f(x): os._exit(0)",
    "raises SystemExit": "def f(x): raise SystemExit(0)",
    "equal to everything": "class A:\n    def __eq__(self, o): return True\n    __hash__ = None\ndef f(x): return A()",
    "an int that is equal to everything": (
        "class A(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef f(x): return A(9)"
    ),
    "prints a pass": (
        "print('outcomes', '0' * 128, '[{\"reason\": \"passed\", \"failures\": []}]', flush=True)\ndef f(x): return 0"
    ),
    "writes into every file that it finds": (
        "import os, glob\nline = b'\\noutcomes ' + b'0' * 128 + b' [{\"reason\": \"passed\", \"failures\": []}]\\n'\n"
        "for name in glob.glob('/proc/[0-9]*/fd/*'):\n"
        "    try:\n        file = os.open(name, os.O_WRONLY | os.O_NONBLOCK)\n        os.write(file, line)\n"
        "    except OSError: pass\n"
        "def f(x): return 0"
    ),
    "answers in the tester's name": (
        "import os, json\ndata = json.dumps({'reason': 'passed', 'failures': []}).encode()\n"
        "for file in range(3, 60):\n"
        "    try: os.write(file, len(data).to_bytes(8, 'big') + data)\n    except OSError: pass\n"
        "def f(x): return 0"
    ),
    "answers with no answer": (
        "import os\nfor n in range(3, 60):\n    try: os.write(n, b'\\xff' * 99)\n    except OSError: pass"
    ),
    "answers too deep": (
        "import os\ndata = b'[' * 100000\n"
        "for n in range(3, 60):\n    try: os.write(n, len(data).to_bytes(8, 'big') + data)\n    except OSError: pass"
    ),
    "kills its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef f(x): return 0",
    "stops its parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\ndef f(x): return 0",
    "kills everybody": "import os\ndef f(x): os.kill(-1, 9)",
    "takes 10 GB": "def f(x):\n    return len(bytearray(10 << 30))",
    "takes 10 GB bit by bit": "def f(x):\n    kept = []\n    while True: kept.append(bytearray(1 << 20))",
    "forks without end": "import os\ndef f(x):\n    while True:\n        try: os.fork()\n        except OSError: pass",
    "prints without end": "def f(x):\n    while True: print('x' * 1000)",
    "prints without end elsewhere": (
        "import os\ndef f(x):\n    file = os.open('/proc/1/fd/1', os.O_WRONLY)\n"
        "    while True: os.write(file, b'x' * 1000)"
    ),
    "answers without end": "def f(x): return 'x' * (1 << 25)",
    "sleeps for ever": "import time\ndef f(x): time.sleep(10 ** 6)",
    "never loads": "while True: pass",
    "opens a socket": (
        "import socket\ndef f(x):\n    socket.create_connection(('1.1.1.1', 53), timeout=1)\n    return x + 1"
    ),
    "reads outside": "def f(x):\n    open('/root/.bashrc').read()\n    open('/etc/shadow').read()\n    return x + 1",
    "traces its parent": (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "def f(x):\n    tried = [libc.ptrace(16, p, 0, 0) for p in (os.getppid(), os.getpid() + 1)]\n"
        "    return x + 1 if 0 in tried else 0"
    ),
    "a repr that lies": "class A:\n    def __repr__(self): return '2'\ndef f(x): return A()",
    "no hash in a set": "import json\nclass A(dict): pass\ndef f(x): return {'tuple': 1}",
    "a name that lies": "class A(Exception): pass\nA.__name__ = 'AssertionError' * 10000\ndef f(x): raise A",
    "an error without text": "class A(Exception):\n    def __str__(self): raise A\ndef f(x): raise A",
    "no text": "\0",
    "half a character": "x = '\ud800'\ndef f(x): return 0",
}

SEARCH = """
import glob, os, re
found = []
def look(where, data):
    if re.search(rb'Quetzal[c]oatl', data): found.append(where)
for name in glob.glob('/proc/[0-9]*/*') + glob.glob('/tmp/*') + glob.glob('/workspace/*') + glob.glob('/dev/shm/*'):
    if name.startswith(f'/proc/{os.getpid()}/') or name.endswith(('/program.py', 'kmsg')): continue
    if os.path.basename(name) in ('cmdline', 'environ', 'maps', 'syscall', 'stack') or not name.startswith('/proc'):
        try: look(name, open(name, 'rb').read())
        except OSError: pass
for name in glob.glob('/proc/[0-9]*/fd/*') + ['/proc/self/fd/%d' % n for n in range(60)]:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
        look(name, os.pread(file, 1 << 16, 0))
    except OSError: pass
for each in os.listdir('/proc'):
    try:
        if not each.isdigit(): continue
        memory = open(f'/proc/{each}/mem', 'rb', 0)
        for line in open(f'/proc/{each}/maps'):
            low, high = (int(n, 16) for n in line.split()[0].split('-'))
            if 'rw' not in line: continue
            try:
                memory.seek(low)
                look(f'memory of {each}', memory.read(high - low))
            except (OSError, ValueError, OverflowError): pass
    except OSError: pass
def f(x): raise ValueError(str(found) if found else 'nothing')
"""

SEARCHED = (
    "def check(candidate):\n    secret = 'Quetzalcoatl'\n    try: candidate(0)\n"
    "    except ValueError as error: assert str(error) {} 'nothing'\n"
)


def checker(python: SandboxedPython, prelude: str = "", names: tuple[str, ...] = ("f",)) -> Checker:
    return Checker(python, Subject("", prelude, names, TRUTH, None))


def judge(python: SandboxedPython, code: str, tests: str = TRUTH, **case: Any) -> CaseOutcome:
    return checker(python).check([Case(code, tests, **case)], timeout_s=3)[0]
