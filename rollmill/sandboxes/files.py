"""Copies files into and out of any sandbox, using only commands in it.

Untrusted commands may have replaced the sandbox's programs. Then a copy fails or has other content, which harms nothing
on this side: what is read is bounded, and never unpacked here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import shlex
import uuid

from rollmill.sandboxes.sandbox import CommandRunner, Execution, Sandbox, SandboxError
from rollmill.sandboxes.timed_sandbox import TimedSandbox
from rollmill.sandboxes.tree_limits import TreeLimits

SIGPIPE = 141
"""Return code of a command that still wrote when its reader had ended."""

_WRITTEN_AT_ONCE = 90_000
"""Bytes; 120,000 as base64, below the 131,071 that one argument of a process may have."""
_READ_AT_ONCE = 540_000
"""Bytes; 720,000 as base64, below the million that `Limits.output_bytes` keeps by default."""
_LEAST_READ = 256
_TIMEOUT_S = 120.0
_CLEAN = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "BASH_ENV": "", "LD_PRELOAD": "", "LD_LIBRARY_PATH": ""}


def write_file(sandbox: CommandRunner, path: str, data: bytes) -> None:
    """Write a file and its folders atomically: it gets its name only after its SHA-256 was checked.

    Raises `SandboxError`, of type `contents` where the sandbox does not accept it.
    """
    part = f"{path}.{uuid.uuid4().hex}.part"
    name, part_name = shlex.quote(path), shlex.quote(part)
    _must(sandbox, f'mkdir -p -- "$(dirname -- {name})" && : > {part_name}', path)
    for begin in range(0, len(data), _WRITTEN_AT_ONCE):
        piece = base64.b64encode(data[begin : begin + _WRITTEN_AT_ONCE]).decode()
        _must(sandbox, f"printf %s {piece} | base64 -d >> {part_name}", path)
    sha256 = hashlib.sha256(data).hexdigest()
    check = f'[ "$(sha256sum < {part_name})" = "{sha256}  -" ]'
    _must(sandbox, f"{check} && mv -fT -- {part_name} {name} || {{ rm -f -- {part_name}; exit 1; }}", path)


def read_file(sandbox: CommandRunner, path: str, *, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises `SandboxError`, of type `contents` where there is no such file, it is longer, or it arrives incomplete.
    """
    data, at_once = bytearray(), min(_READ_AT_ONCE, max(most, _LEAST_READ))
    while True:
        command = (
            f'f={shlex.quote(path)}; [ -f "$f" ] && s=$(wc -c < "$f") && [ $s -le {most} ] || '
            '{ echo "${s:-no regular file}"; exit 9; }; '
            f'p=$(tail -c +{len(data) + 1} -- "$f" | head -c {at_once} | base64 | tr -d "\\n"); '
            'echo $s "$(printf %s "$p" | sha256sum)" "$p"'
        )
        done = run_clean(sandbox, command)
        if done.returncode:
            message = done.output.strip()
            why = f"{message} bytes, {most} are taken" if message.isdecimal() else message[-200:]
            raise SandboxError(f"{path} cannot be read from a sandbox: {why}", type_="contents", details=done.output)
        size, piece = _take_piece(done)
        if piece is None:
            at_once //= 2  # the output was truncated: this sandbox keeps less
            if at_once < _LEAST_READ:
                raise SandboxError(f"{path} cannot be read completely from a sandbox", type_="contents")
            continue
        data += piece
        if len(data) == size:
            return bytes(data)
        if not piece or len(data) > min(size, most):
            raise SandboxError(f"{path} changes while it is read from a sandbox", type_="contents")


def read_tree(sandbox: Sandbox, cwd: str, *, most: int, limits: TreeLimits | None = None) -> bytes:
    """Return a tar archive of a folder without `.git`; names begin with `./`.

    Raises `SandboxError`, of type `contents` where something cannot be read or there is more. The archive is
    untrusted: unpack it with `tarfile`'s filter `data`, or in another sandbox.

    Args:
        sandbox: Has the folder.
        cwd: The folder.
        most: Maximum bytes of the archive.
        limits: Of entries and depth, which are counted before the archive is written; None for the defaults.
    """
    limits = limits or TreeLimits()
    timed, folder = TimedSandbox(sandbox, limits.seconds), shlex.quote(cwd)
    archive = f"/tmp/.{uuid.uuid4().hex}.tar"  # noqa: S108
    # The depth of each entry, one a line. `head` ends `find`, and below `tar`, as soon as there is too much.
    depths = (
        f"find . -maxdepth {limits.depth + 1} -path ./.git -prune -o -printf '%d\\n' | head -n {limits.entries + 1}"
    )
    count = (
        f"cd -- {folder} && {depths} > {archive} || [ ${{PIPESTATUS[0]}} = {SIGPIPE} ] || exit 1; "
        f"[ $(wc -l < {archive}) -le {limits.entries} ] || "
        f"{{ echo 'it holds more than {limits.entries} files and folders'; exit 1; }}; "
        f"! grep -qx {limits.depth + 1} {archive} || {{ echo 'it is more than {limits.depth} folders deep'; exit 1; }}"
    )
    pack = f"tar -cf - --exclude=./.git -C {folder} . | head -c {most + 1} > {archive}"
    try:
        _must(timed, count, cwd)
        # Beyond `most`, tar ends with a broken pipe: `read_file` then reports the size.
        _must(timed, f'{pack}; [ "${{PIPESTATUS[0]}}" = 0 ] || [ $(wc -c < {archive}) -gt {most} ]', cwd)
        return read_file(timed, archive, most=most)
    finally:
        run_clean(sandbox, f"rm -f {archive}")


def run_clean(sandbox: CommandRunner, command: str) -> Execution:
    """Run a command with the system's own programs. Raises `SandboxError` where the sandbox failed."""
    return sandbox.execute(command, cwd="/", env=_CLEAN, timeout_s=_TIMEOUT_S)


def _must(sandbox: CommandRunner, command: str, path: str) -> None:
    done = run_clean(sandbox, f"set -o pipefail; {command}")
    if done.returncode:
        message = done.output.strip()[-200:] or f"return code {done.returncode}"
        raise SandboxError(f"{path} in a sandbox: {message}", type_="contents", details=done.output)


def _take_piece(done: Execution) -> tuple[int, bytes | None]:
    """Return the file's size and a piece of its content; None for a piece that arrived damaged."""
    fields = done.output.split()
    if len(fields) == 3:
        fields.append("")
    if len(fields) != 4 or not fields[0].isdecimal() or len(fields[0]) > 15:
        return 0, None
    if hashlib.sha256(fields[3].encode()).hexdigest() != fields[1]:
        return 0, None
    try:
        return int(fields[0]), base64.b64decode(fields[3], validate=True)
    except binascii.Error:
        return 0, None
