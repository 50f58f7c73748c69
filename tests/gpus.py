"""Simulated machines with GPUs: the driver's files in /dev and /proc, and nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from rollmill.inference import devices

PROPRIETARY = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun Mar  2 10:00:00 UTC 2025\nGCC version:  gcc 12.2.0\n"
)
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build  (dvs-builder)\nGCC version: 12.2.0\n"
)


class FakeMachine:
    """A machine without a GPU, until it is given one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dev, self.driver, self.programs, self.wsl = (
            folder / name for name in ("dev", "driver", "programs", "wsl")
        )
        for path in (self.dev, self.driver, self.programs, self.wsl):
            path.mkdir(parents=True)
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(devices, "DEV", self.dev)
        monkeypatch.setattr(devices, "DRIVER", self.driver)
        monkeypatch.setattr(devices, "WSL", self.wsl)
        monkeypatch.setenv("PATH", f"{self.programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
        for name in (devices.VISIBLE, devices.KIND):
            monkeypatch.delenv(name, raising=False)

    def show(self, *files: str, driver: str | None = None, names: Sequence[str] = (), text: str = PROPRIETARY) -> None:
        """Adds device files, or WSL2's `libcuda.so.1`, a driver's version, and GPUs that it names."""
        for name in files:
            ((self.wsl if name.startswith("lib") else self.dev) / name).touch()
        if driver:
            (self.driver / "version").write_text(text.format(driver))
        for number, name in enumerate(names):
            folder = self.driver / "gpus" / f"0000:{number:02d}:00.0"
            folder.mkdir(parents=True)
            (folder / "information").write_text(f"Model: \t\t {name}\nIRQ:   \t\t 7\n")

    def nvidia_smi(self, text: str, code: int = 0) -> None:
        """Adds the program, which answers everything with one text."""
        program = self.programs / "nvidia-smi"
        program.write_text(f"#!/bin/sh\nprintf '{text}'\nexit {code}\n")
        program.chmod(0o755)
