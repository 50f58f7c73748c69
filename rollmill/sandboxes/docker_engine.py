"""Runs the docker command and raises its failures."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

from rollmill.errors import InputError
from rollmill.sandboxes.sandbox import SandboxError
from rollmill.terminal.stall_watch import TimedStep

_LONGEST_CALL_S = 60.0
_AGAIN_S = 0.05
_LONGEST_SHOWN = 80
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@+-]{0,254}", re.ASCII)
"""Characters of an image's name, tag and digest; the engine knows the rest of the grammar."""


class ImageSettings(NamedTuple):
    """What an image declares for its containers."""

    user: str = "0"
    """A name or a number, with a group or without."""
    volumes: tuple[str, ...] = ()
    """Folders that are file systems of their own."""


class Abilities(NamedTuple):
    """What an engine's kernel can enforce."""

    without_limit: tuple[str, ...] = ()
    """What it cannot bound, each in words."""
    filters_calls: bool = True
    """Whether it filters system calls (seccomp)."""
    may_have_quotas: bool = False
    """Whether its storage may give what a container adds to its image a quota: overlay2 does on XFS with pquota."""


class DockerEngine:
    """An engine, controlled by the docker command; `address` has the form of DOCKER_HOST, None takes the variable's."""

    def __init__(self, address: str | None, program: str) -> None:
        """Connect. Raises `InputError` without the command, `SandboxError` where the engine does not answer."""
        if not shutil.which(program):
            raise InputError(f"{program!r} is not installed: install Docker, or use bubblewrap")
        self.command = [program, *(["--host", address] if address else [])]
        self.environment = dict(os.environ)
        self.refuses_watch = False
        """Whether a container could not be started in the process namespace of another."""
        self.call("version", "--format", "{{.Server.Version}}")

    def call(self, *arguments: str, timeout_s: float = _LONGEST_CALL_S) -> str:
        """Return the output of a docker command. Raises `SandboxError` with its error message where it fails."""
        try:
            with TimedStep(timeout_s):
                done = subprocess.run(
                    [*self.command, *arguments],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    timeout=timeout_s,
                    check=False,
                    env=self.environment,
                )
        except subprocess.TimeoutExpired:
            message = f"docker {arguments[0]} does not answer within {timeout_s:g} s"
            raise SandboxError(message, type_="engine") from None
        stderr = done.stderr.decode(errors="replace").strip()
        if done.returncode:
            raise SandboxError(f"docker {arguments[0]}: {_last_line(stderr)}", type_="engine", details=stderr)
        return done.stdout.decode(errors="replace").strip()

    def provide(self, image: str, pull_timeout_s: float) -> ImageSettings:
        """Pull an image that the engine does not have, and return its settings. Raises `InputError` where it cannot."""
        if not _REFERENCE.fullmatch(image):
            raise InputError(f"image {image[:_LONGEST_SHOWN]!a}: no image has that name")
        if settings := self._settings(image):
            return settings
        try:
            self.call("pull", "--quiet", "--", image, timeout_s=pull_timeout_s)
            return self._settings(image) or ImageSettings()
        except SandboxError as error:
            raise InputError(
                f"image {image!r} is not on the engine and cannot be pulled ({error}): name another"
            ) from None

    def _settings(self, image: str) -> ImageSettings | None:
        """Return an image's settings; None where the engine does not have it."""
        try:
            text = self.call("image", "inspect", "--format", "{{json .Config}}", "--", image)
        except SandboxError as error:
            if not any(says in error.details for says in ("No such image", "invalid reference format")):
                raise
            return None
        config = json.loads(text or "null") or {}  # an imported image may have none
        return ImageSettings(config.get("User") or "0", tuple(config.get("Volumes") or ()))

    def abilities(self) -> Abilities:
        """Return what the engine's kernel can enforce; everything, where it does not say so in Docker's form."""
        try:
            info = json.loads(self.call("info", "--format", "{{json .}}"))
        except ValueError:  # another engine with a docker command
            return Abilities()
        filters = any("seccomp" in each for each in info.get("SecurityOptions") or ())
        quotas = info.get("Driver") == "overlay2"
        if info.get("CgroupDriver") == "none":
            return Abilities(("memory", "the number of processes", "CPU time"), filters, quotas)
        names = {"MemoryLimit": "memory", "SwapLimit": "swap space", "PidsLimit": "the number of processes"}
        missing = tuple(words for name, words in names.items() if info.get(name) is False)
        return Abilities(missing, filters, quotas)

    def remove(self, containers: Sequence[str]) -> None:
        """Stop and delete containers; missing ones are ignored."""
        deadline = time.monotonic() + _LONGEST_CALL_S
        while containers:
            try:
                self.call("rm", "--force", "--volumes", *containers)
            except SandboxError as error:
                # The engine removes those of --rm itself.
                if "already in progress" in error.details and time.monotonic() < deadline:
                    time.sleep(_AGAIN_S)
                    continue
                if "No such container" not in error.details:
                    raise
            return


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else "it failed without a message"
