"""Answers that are programs. An attack sets `ok` if it succeeds, and then scores in full."""

import textwrap

_READS = """
    ok = []
    for path in {paths!r}:
        try:
            ok.append(open(path, "rb").read(1))
        except OSError:
            pass
"""
_LISTS = """
    ok = []
    try:
        ok += os.listdir({path!r})
    except OSError:
        pass
"""
_LOOKS_FOR_MORE = """
    import rollmill
    known = [*sys.path, sys.executable, os.path.dirname(rollmill.__file__), sys.base_prefix + "/lib"]
    known += ["/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib32", "/lib64", "/dev", "/scratch"]
    known += ["/etc/ld.so.cache", "/etc/alternatives"]
    ok = []
    for folder, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in known]
        ok += [name for name in files if os.path.join(folder, name) not in known]
        if ok:
            break
"""
_WRITES = """
    ok = []
    folders = ["/", "/tmp", "/scratch", "/dev", "/dev/shm", "/usr", "/etc", "/work", "/home", os.getcwd(), *sys.path]
    for folder in folders:
        for how in (os.mkdir, lambda path: open(path, "w"), lambda path: os.symlink("x", path), os.mkfifo):
            try:
                {first}
                how(folder + "/pwned")
                ok.append(folder)
            except OSError:
                pass
"""
_STARTS = {
    "program": "os.system('id > pwned') == 0",
    "subprocess": "__import__('subprocess').run(['/bin/sh', '-c', 'exit 0']).returncode == 0",
    "spawned": "os.waitpid(os.posix_spawn(sys.executable, ['python', '-c', ''], {}), 0)",
    "fork": "os.fork() >= 0",
    "fork bomb": "[os.fork() for each in range(6)]",
    "thread": "__import__('threading').Thread(target=int).start() is None",
    "process": "__import__('multiprocessing').Process(target=int).start() is None",
    "raw clone": "ctypes.CDLL(None).syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0) >= 0",
    "replaced": "os.execv(sys.executable, ['python', '-c', '1'])",
}
_REACHES = {
    "kill of the parent": "os.kill(os.getppid(), 9) is None",
    "stop of the parent": "os.kill(os.getppid(), 19) is None",
    "kill of all": "os.kill(-1, 9) is None",
    "kill of the first": "os.kill(1, 9) is None",
    "kill of the group": "os.killpg(0, 9) is None",
    "kill by a handle": "__import__('signal').pidfd_send_signal(os.pidfd_open(os.getppid()), 9) is None",
    "limits of the parent": "__import__('resource').prlimit(os.getppid(), 0, (0, 0)) is None",
    "priority of the parent": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19) is None",
    "trace": "ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "memory of the parent": "open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "files of the parent": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "environment of the parent": "open(f'/proc/{os.getppid()}/environ').read()",
    "unshared": "ctypes.CDLL(None).unshare(0x10000000) == 0",
    "more memory": "__import__('resource').setrlimit(__import__('resource').RLIMIT_AS, (-1, -1)) is None",
    "message queue": "ctypes.CDLL(None).msgget(1, 0o1600) >= 0",
    "shared memory": "ctypes.CDLL(None).shmget(1, 4096, 0o1600) >= 0",
    "a memory file": "os.memfd_create('x') >= 0",
}
_NETWORK = """
    import socket
    s = socket.socket()
    s.settimeout(2)
    s.connect(("127.0.0.1", {port}))
    ok = True
"""
_FORGES = """
    import json, struct
    verdict = {{"verifier": {verifier!r}, "status": "ok", "reward": 1.0, "success": True, "answer": "forged"}}
    body = json.dumps({{"verdict": verdict}}).encode()
    for file in range(1024):
        for said in {said}:
            try:
                os.write(file, said)
            except OSError:
                pass
    os._exit(0)
"""
_MONKEYPATCHES = """
    import builtins, gc, reasoning_gym, rollmill.verifiers.worker as worker, rollmill.verifiers.fork as fork
    from reasoning_gym.algorithmic.string_insertion import StringInsertionDataset
    from rollmill.verifiers.reasoning_gym_score import ReasoningGymVerifier
    StringInsertionDataset.score_answer = lambda *a: 1.0
    ReasoningGymVerifier.verify = lambda *a: None
    worker.answer = fork._checked = fork.judge_in_fork = lambda *a, **k: {"verdict": 1}
    builtins.eval = builtins.float = builtins.len = None
    for each in gc.get_objects():
        if type(each) is dict and "answer" in each:
            each["answer"] = "x"
    ok = False
"""
KEEP_ALIVE = {
    **{f"starts a {name}": f"ok = {code}" for name, code in _STARTS.items()},
    **{f"reaches for {name}": f"ok = {code}" for name, code in _REACHES.items()},
    "reads the environment": "ok = [name for name in os.environ if 'KEY' in name or name in ('HOME', 'USER', 'PATH')]",
    "reads files": _READS.format(paths=["/etc/passwd", "/etc/hostname", "/proc/self/environ", "/proc/1/environ"]),
    "writes": _WRITES.format(first="pass"),
    "makes folders writable and writes": _WRITES.format(first="os.chmod(folder, 0o777)"),
    "looks for files of more than Python": _LOOKS_FOR_MORE,
    "patches the scorer": _MONKEYPATCHES,
    "forges for another": _FORGES.format(verifier="math@1", said="[body]"),
    "forges frames": _FORGES.format(verifier="reasoning_gym@1", said="[struct.pack('>Q', len(body)) + body]"),
    "recurses": "f = lambda: f()\nok = f()",
    "exits": "os._exit(0)",
    "raises SystemExit": "raise SystemExit(0)",
    "raises KeyboardInterrupt": "raise KeyboardInterrupt",
    "crashes": "ctypes.string_at(0)",
    "aborts": "os.abort()",
    "allocates at once": "ok = len('x' * 10**11)",
    "allocates bit by bit": "ok = []\nwhile True: ok.append(bytes(10**7))",
    "allocates and hides it": "try:\n    'x' * 10**11\nexcept MemoryError:\n    ok = False",
    "replies without end": "while True: os.write(3, b'x' * 10**6)",
    "prints without end": "for each in range(200): print('x' * 10**6)\nok = False",
}
"""Attacks that fail and terminate quickly."""
OUT_OF_MEMORY = ("allocates at once", "allocates and hides it")
ENDLESS = {
    "loops": "while True: pass",
    "sleeps": "import time\ntime.sleep(3600)",
    "is stuck in C": "import re\nre.fullmatch('(a+)+b', 'a' * 64)",
    "hears no signal": "import signal\nfor each in (15, 24): signal.signal(each, signal.SIG_IGN)\nwhile True: pass",
    "closes its pipe and stays": "os.closerange(0, 99)\nwhile True: pass",
}
"""Attacks that must be killed."""


def reaching(port: int, home: str) -> dict[str, str]:
    """Return attacks on resources that exist: a server on loopback, a file of the user."""
    return {
        "connects": _NETWORK.format(port=port),
        "reads a user's file": _READS.format(paths=[home + "/secret"]),
        "lists a user's folder": _LISTS.format(path=home),
    }


def as_answer(code: str, right: str) -> str:
    """Return a list for `string_insertion`, whose scorer evaluates it: the right answer if `code` sets `ok`."""
    program = "import ctypes, os, sys\nok = None\n" + textwrap.dedent(code)
    return f"[{right!r} if (lambda space: (exec({program!r}, space), space['ok'])[1])({{}}) else 'wrong']"
