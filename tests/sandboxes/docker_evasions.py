"""Python programs that try to use more than a sandbox's limits; each prints the MiB that it has used."""

from __future__ import annotations

from typing import NamedTuple

_BURN = """
import os, time

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""
_FILES = """
import ctypes, mmap, os, socket, struct, threading, time

C = ctypes.CDLL(None)
C.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
PIECE = b"x" * (1 << 20)
kept = []

def made(number):
    return os.open(f"/tmp/{number}", os.O_RDWR | os.O_CREAT)

def deleted(number):
    file = made(number)
    os.unlink(f"/tmp/{number}")
    os.write(file, PIECE)
    return file

def each(step):
    for number in range(400):
        step(number)
        print(number + 1, flush=True)
        time.sleep(0.02)
    time.sleep(60)
"""
_SOCKETS = """
import os, socket, struct, time

kept, total = [], 0

def held(count):
    global total
    total += count
    print(total >> 20, flush=True)
    time.sleep(0.003)

def fill(sender, piece):
    sender.setblocking(False)
    try:
        while True:
            held(sender.send(piece))
    except BlockingIOError:
        pass
"""


class Evasion(NamedTuple):
    """A program, the limit that has to end it, and whether the size of its files can be seen from outside."""

    limit: str
    program: str
    visible: bool = True


EVASIONS = {
    "many processes": Evasion(
        "CPU",
        f"""{_BURN}
for _ in range(5):
    if os.fork() == 0:
        burn(60)
burn(60)
""",
    ),
    "orphans": Evasion(
        "CPU",
        f"""{_BURN}
while True:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            burn(0.05)
        os._exit(0)
    os.wait()
    burn(0.05)
""",
    ),
    "many files": Evasion("disk", f"{_FILES}\neach(lambda number: os.write(made(number), PIECE))"),
    "deleted files": Evasion("disk", f"{_FILES}\neach(lambda number: kept.append(deleted(number)))"),
    "deleted files of a thread whose leader has ended": Evasion(
        "disk",
        f"""{_FILES}
def work():
    time.sleep(0.2)
    each(lambda number: kept.append(deleted(number)))

threading.Thread(target=work).start()
C.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
""",
    ),
    "mapped files without a name or a descriptor": Evasion(
        "disk",
        f"""{_FILES}
def step(number):
    file = deleted(number)
    C.mmap(None, 4096, 3, 1, file, 0)
    os.close(file)

each(step)
""",
        visible=False,
    ),
    "files in flight in a socket": Evasion(
        "disk",
        f"""{_FILES}
pairs = [socket.socketpair() for _ in range(40)]

def step(number):
    file = deleted(number)
    socket.send_fds(pairs[number // 20][0], [b"x"], [file])
    os.close(file)

each(step)
""",
        visible=False,
    ),
    "files written through memory": Evasion(
        "disk",
        f"""{_FILES}
def step(number):
    file = made(number)
    os.ftruncate(file, 1 << 20)
    mmap.mmap(file, 1 << 20)[:] = PIECE
    os.close(file)

each(step)
""",
    ),
    "reserved space": Evasion(
        "disk",
        f"""{_FILES}
import fcntl
XFS_IOC_RESVSP64 = 0x4030582A
everything = struct.pack("hhqqIIIIII", 0, 0, 0, 30 << 20, *bytes(6))

def step(number):
    file = made(number)
    try:
        fcntl.ioctl(file, XFS_IOC_RESVSP64, everything)
    except PermissionError:
        os.posix_fallocate(file, 0, 1 << 20)
    os.close(file)

each(step)
""",
    ),
    "moved files": Evasion(
        "disk",
        f"""{_FILES}
os.makedirs("/tmp/a/c")
os.makedirs("/tmp/b")
os.chdir("/tmp/a/c")
if os.fork() == 0:
    while True:
        os.rename("/tmp/a/c", "/tmp/b/c")
        os.rename("/tmp/b/c", "/tmp/a/c")
each(lambda number: open(str(number), "wb").write(PIECE))
""",
    ),
    "UDP": Evasion(
        "memory",
        f"""{_SOCKETS}
while True:
    sender, receiver = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    kept.append(receiver)
    held(sum(sender.sendto(bytes(60000), receiver.getsockname()) for _ in range(3)))
""",
    ),
    "TCP": Evasion(
        "memory",
        f"""{_SOCKETS}
server = socket.create_server(("127.0.0.1", 0))
while True:
    kept.append(socket.create_connection(server.getsockname()))
    kept.append(server.accept()[0])
    fill(kept[-2], bytes(65536))
""",
    ),
    "netlink": Evasion(
        "memory",
        f"""{_SOCKETS}
ask_for_loopback = struct.pack("=IHHIIBxHiII", 32, 18, 1, 1, 0, 0, 0, 1, 0, 0)
while True:
    kept.append(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
    kept[-1].bind((0, 0))
    kept[-1].setblocking(False)
    try:
        for _ in range(400):
            kept[-1].send(ask_for_loopback)
    except OSError:
        pass
    held(200_000)
""",
    ),
    "UNIX sockets": Evasion(
        "memory",
        f"""{_SOCKETS}
while True:
    kept.append(socket.socketpair())
    fill(kept[-1][0], bytes(60000))
""",
    ),
    "files in memory": Evasion(
        "memory",
        f"""{_SOCKETS}
while True:
    kept.append(os.memfd_create("x"))
    held(os.write(kept[-1], bytes(1 << 20)))
""",
    ),
}
"""By name."""
