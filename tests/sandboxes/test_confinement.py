"""Escape attempts on real bubblewrap: each is made for real and has to fail."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from rollmill.sandboxes.bpf import ALLOW
from rollmill.sandboxes.system_calls import _ARCHITECTURE, _NUMBERS, _OF_PROCESSES, _OF_RULES, filter_program


@pytest.mark.parametrize(
    "path",
    ["/root", "/home", "/work", "/var/log", "/run", "/sys", "/boot", "/srv", "/mnt", "/etc/shadow", "/etc/hostname"],
)
def test_host_folders_are_missing(start, path):
    done = start().execute(f"ls -d {path}")
    assert done.returncode == 2
    assert "No such file or directory" in done.output


@pytest.mark.parametrize(
    "path", ["/usr/bin/x", "/usr/x", "/etc/x", "/x", "/dev/x", "/opt/python/bin/x", "/bin/x", "/proc/x", "/var/x"]
)
def test_the_system_cannot_be_written(start, path):
    done = start().execute(f"touch {path}; mkdir {path}")
    assert done.returncode == 1
    assert not Path(path).exists()


def test_the_hosts_and_the_repositorys_files_are_nowhere(start, tmp_path):
    secret = tmp_path / "secret-of-the-host"
    secret.write_text("x")
    done = start().execute(
        f"ls {tmp_path}; ls /tmp; find / -xdev -name 'secret-of-the-host' 2> /dev/null; ls {Path(__file__).parent}"
    )
    assert done.output.count("No such file or directory") == 2
    assert "secret-of-the-host\n" not in done.output


def test_other_sandboxes_files_and_processes_are_not_seen(start):
    first, two = start(), start()
    first.execute("echo secret > /tmp/mine; echo secret > mine")
    seen = two.execute("cat /tmp/mine mine; ls /tmp; ls / | tr '\\n' ' '")
    assert "secret" not in seen.output
    assert two.execute("ls -d /proc/[0-9]* | wc -l").output.strip() in {"3", "4", "5"}  # the namespace's own


def test_the_hosts_environment_and_arguments_do_not_leak(start, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "sesame-of-the-host")
    done = start().execute("env; cat /proc/*/environ | tr '\\0' '\\n'", env={"GIVEN": "1"})
    assert "sesame" not in done.output
    assert "GIVEN=1" in done.output
    names = {line.split("=")[0] for line in start().execute("env").output.splitlines()}
    assert names == {"PATH", "HOME", "USER", "LANG", "TERM", "PYTHONDONTWRITEBYTECODE", "PWD", "SHLVL", "_"}


def test_no_file_of_the_host_is_open(start):
    done = start().execute("for f in /proc/self/fd/*; do readlink $f; done | sed 's/[0-9]//g' | sort -u")
    assert done.output == "/dev/null\npipe:[]\n"


def test_privileges_cannot_be_gained(start):
    done = start().execute("grep -E 'Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs' /proc/self/status | cut -f2 | tr '\\n' ' '")
    assert done.output.split() == ["0" * 16] * 4 + ["1"]
    assert start().execute("unshare --user true || unshare --mount true || mount -t tmpfs x /tmp").returncode != 0
    if os.geteuid() == 0:
        outside = start()
        [work] = {path.stat().st_uid for path in [outside._folder / "work"]}
        assert work > 65_536


def test_network_is_unreachable(start, root):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket"))
        unix.listen()
        with socket.socket(socket.AF_UNIX) as abstract:
            abstract.bind(f"\0rollmill-{os.getpid()}")
            abstract.listen()
            done = start().execute(f"""python3 - << 'END'
import socket
def attempt(family, address):
    s = socket.socket(family)
    s.settimeout(2)
    try:
        s.connect(address)
        print("reached", address)
    except OSError as error:
        print(type(error).__name__)
attempt(socket.AF_INET, ("127.0.0.1", {server.getsockname()[1]}))
attempt(socket.AF_INET, ("192.0.2.1", 80))
attempt(socket.AF_UNIX, "{root}/socket")
attempt(socket.AF_UNIX, "\\0rollmill-{os.getpid()}")
END""")
    assert done.output.split() == ["ConnectionRefusedError", "OSError", "FileNotFoundError", "ConnectionRefusedError"]


def test_no_process_of_the_host_can_be_signalled_or_traced(start):
    done = start().execute(f"""python3 - << 'END'
import ctypes, os
try:
    os.kill({os.getpid()}, 9)
except ProcessLookupError:
    print("nobody")
libc = ctypes.CDLL(None, use_errno=True)
print(libc.ptrace(16, {os.getpid()}, 0, 0), os.strerror(ctypes.get_errno()))
END""")
    assert done.output == "nobody\n-1 No such process\n"


def test_kill_all_ends_only_the_command(start):
    sandbox, other = start(), start()
    beside = threading.Thread(target=lambda: results.append(other.execute("sleep 1; echo alive").output))
    results: list[str] = []
    beside.start()
    killing = sandbox.execute("sleep 60 & (sleep 0.1; kill -9 -1) & kill -9 1; wait; echo survived", timeout_s=20)
    assert killing.returncode == 137
    assert sandbox.execute("echo next").output == "next\n"
    beside.join()
    assert results == ["alive\n"]


def test_a_link_out_of_the_work_tree_leads_nowhere(start):
    sandbox = start()
    assert sandbox.execute("ln -s /root out; ln -s ../../../../.. up; ls out/").returncode == 2
    assert "workspace" in sandbox.execute("ls up/").output
    sandbox.close()
    assert Path("/root").exists()


def test_what_a_command_makes_executable_gains_nothing(start):
    assert start().execute("cp /usr/bin/id /tmp/id; chmod 4755 /tmp/id; /tmp/id -u").output == "1000\n"


@pytest.mark.skipif(not filter_program(), reason="no filter for this kind of processor")
def test_system_calls_that_hide_memory_are_denied(start):
    done = start().execute("""python3 - << 'END'
import ctypes, errno, mmap, os, platform
try:
    os.memfd_create("x")
except OSError as error:
    print(error.errno == errno.ENOSYS)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.shmget(0, 4096, 0o1600), ctypes.get_errno() == errno.ENOSYS)
# The same call by the numbers of x32, and one that is fine.
number = 319 | 0x40000000 if platform.machine() == "x86_64" else 279
print(libc.syscall(ctypes.c_long(number), b"x", 0), ctypes.get_errno() == errno.ENOSYS)
print(libc.syscall(ctypes.c_long(-1)), len(mmap.mmap(-1, 4096)))
END""")
    assert done.output.splitlines() == ["True", "-1 True", "-1 True", "-1 4096"]


CALLS = """
import ctypes, errno, mmap, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    print(name, "done" if result >= 0 else errno.errorcode[ctypes.get_errno()])
one, other = socket.socketpair()
file = os.open("word", os.O_RDWR | os.O_CREAT)
os.write(file, b"hello")
try:
    os.sendfile(one.fileno(), file, 0, 5)
except OSError as error:
    print("sendfile", errno.errorcode[error.errno])
pages = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
for advice in (14, 25, 4):  # huge pages, whole ones at once, and an honest one
    call("madvise", ctypes.c_void_p(address), ctypes.c_size_t(4 << 20), advice)
for option in (22, 78):  # PR_SET_SECCOMP, PR_FUTEX_HASH
    call("prctl", option, *[ctypes.c_ulong(1)] * 4)
call("prctl", 38, *map(ctypes.c_ulong, (1, 0, 0, 0)))  # PR_SET_NO_NEW_PRIVS
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
result = libc.syscall(ctypes.c_long(number), ctypes.c_ulong(0x8000 | 17), *[ctypes.c_ulong(0)] * 4)  # CLONE_PARENT
if result == 0:
    os._exit(0)
print("clone", "done" if result > 0 else errno.errorcode[ctypes.get_errno()])
"""


@pytest.mark.skipif(not filter_program(), reason="no filter for this kind of processor")
def test_arguments_by_which_memory_hides_are_refused(start):
    done = start().execute(f"python3 - << 'END'\n{CALLS}\nEND")
    assert done.output.splitlines() == [
        "sendfile EINVAL",
        *("madvise EINVAL", "madvise EINVAL", "madvise done"),
        *("prctl EINVAL", "prctl EINVAL", "prctl done"),
        "clone EINVAL",
    ]


@pytest.mark.skipif(not filter_program(), reason="no filter for this kind of processor")
def test_files_are_still_copied_by_shutil(start):
    copy = (
        "import shutil; open('word', 'w').write('hello'); shutil.copyfile('word', 'copy'); print(open('copy').read())"
    )
    assert start().execute(f'python3 -c "{copy}"').output == "hello\n"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("processes", [True, False])
def test_the_filter_refuses_what_it_names_and_nothing_else(machine, processes):
    numbers = set(_NUMBERS[machine].values()) | (set() if processes else set(_OF_PROCESSES[machine].values()))
    ruled = set(_OF_RULES[machine].values()) - numbers
    for number in {*range(500), 0x40000000, 0x40000000 | 319, 0xFFFFFFFF} - ruled:
        refused = number in numbers or number >= 0x40000000
        assert (verdict(machine, number, _ARCHITECTURE[machine], processes) != ALLOW) == refused
        assert verdict(machine, number, 0x40000003, processes) != ALLOW
    assert filter_program("mips") == b""


def error(number: int) -> int:
    return 0x00050000 | number


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(
    ("call", "arguments", "expected"),
    [
        ("clone", [17], ALLOW),
        ("clone", [0x3D0F00], ALLOW),  # the flags of pthread_create
        ("clone", [0x3D0F00 & ~0x400], error(errno.ENOSYS)),
        ("mmap", [0, 4096, 3, 0x22], ALLOW),
        ("mmap", [0, 1 << 21, 3, 0x40022], error(errno.ENOMEM)),
        ("fcntl", [3, 1032], ALLOW),
        ("fcntl", [3, 1031, 1 << 20], error(errno.EPERM)),
        ("splice", [3, 0, 4], error(errno.EINVAL)),
        ("fallocate", [3, 1, 0, 1 << 20], error(errno.EOPNOTSUPP)),
        ("prlimit64", [0, 7], ALLOW),
        ("prlimit64", [1, 7], error(errno.EPERM)),
        ("setsockopt", [3, 1, 2], ALLOW),
        ("setsockopt", [3, 6, 7], ALLOW),  # of TCP
        ("setsockopt", [3, 1, 7], error(0)),
        ("setsockopt", [3, 1, 33], error(0)),
        ("setsockopt", [3, 1, 26], error(errno.ENOPROTOOPT)),
        ("socketpair", [1, 1, 0], ALLOW),
        ("socketpair", [30, 1, 0], error(errno.EAFNOSUPPORT)),
        ("socket", [1, 1, 0], ALLOW),
        ("socket", [10, 2, 17], ALLOW),
        ("socket", [2, 1, 262], error(errno.EPROTONOSUPPORT)),  # MPTCP
        ("socket", [16, 3, 0], ALLOW),
        ("socket", [16, 3, 4], error(errno.EPROTONOSUPPORT)),
        ("socket", [38, 5, 0], error(errno.EAFNOSUPPORT)),  # AF_ALG
        ("socket", [40, 1, 0], error(errno.EAFNOSUPPORT)),  # AF_VSOCK
    ],
)
def test_the_filter_judges_arguments(machine, call, arguments, expected):
    number = _OF_RULES[machine][call]
    assert verdict(machine, number, _ARCHITECTURE[machine], True, arguments) == expected


def verdict(
    machine: str, number: int, architecture: int, processes: bool, arguments: Sequence[int] = (0, 0, 0, 0)
) -> int:
    """Return the filter's action, by interpreting its BPF program."""
    steps = list(struct.iter_unpack("=HBBI", filter_program(machine, processes=processes)))
    loaded = {0: number, 4: architecture, **{16 + 8 * index: value for index, value in enumerate(arguments)}}
    position, value = 0, 0
    while True:
        code, yes, no, operand = steps[position]
        position += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            value = loaded[operand]
        elif code == 0x54:
            value &= operand
        elif code == 0x05:
            position += operand
        else:
            position += yes if (value == operand if code == 0x15 else value >= operand) else no
