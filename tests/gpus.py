"""Simulated machines with GPUs: the driver's files in /dev and /proc, and nvidia-smi."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from rollmill.inference import devices, gpu_reservation

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
        monkeypatch.setattr(gpu_reservation, "FOLDER", folder / "reserved")
        monkeypatch.setattr(gpu_reservation, "_PATIENCE_S", 0.0)
        for name in (devices.VISIBLE, devices.KIND, devices.SHARE):
            monkeypatch.delenv(name, raising=False)

    def show(self, *files: str, driver: str | None = None, text: str = PROPRIETARY) -> None:
        """Adds device files, or WSL2's `libcuda.so.1`, and a driver's version."""
        for name in files:
            ((self.wsl if name.startswith("lib") else self.dev) / name).touch()
        if driver:
            (self.driver / "version").write_text(text.format(driver))

    def show_gpus(self, count: int, *, instances: Mapping[int, int] | None = None, smi: bool = True) -> None:
        """Adds GPUs with the UUIDs GPU-a0, GPU-a1, ...; without `smi` there is no nvidia-smi.

        `instances` has the number of MIG instances (MIG-a0-0, ...) of GPUs in MIG mode, by their number.
        """
        divided = dict(instances or {})
        self.show("nvidiactl", *(f"nvidia{number}" for number in range(count)), driver="580.65.06")
        listed, modes = [], []
        for number in range(count):
            listed.append(f"GPU {number}: NVIDIA H200 (UUID: GPU-a{number})")
            listed += [
                f"  MIG 1g.18gb     Device  {each}: (UUID: MIG-a{number}-{each})"
                for each in range(divided.get(number, 0))
            ]
            modes.append(f"GPU-a{number}, {'Enabled' if number in divided else 'Disabled'}, NVIDIA H200")
        if smi:
            self.nvidia_smi_lists(listed, modes)

    def nvidia_smi_lists(self, gpus: Sequence[str], modes: Sequence[str] = ()) -> None:
        """Adds the program with the lines of its `-L`, and of its query of UUIDs, MIG modes and names."""
        for name, lines in (("gpus", gpus), ("modes", modes)):
            (self.programs / name).write_text("".join(f"{line}\n" for line in lines))
        self._program(f'case "$1" in -L) cat "{self.programs}/gpus" ;; *mig*) cat "{self.programs}/modes" ;; esac')

    def hang(self) -> None:
        """Makes nvidia-smi hang, and the wait for it short."""
        self._monkeypatch.setattr(devices, "PATIENCE_S", 0.2)
        self._program("exec sleep 60")

    def nvidia_smi(self, text: str, code: int = 0) -> None:
        """Adds the program, which answers everything with one text."""
        self._program(f"printf '{text}'\nexit {code}")

    def _program(self, commands: str) -> None:
        program = self.programs / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{commands}\n")
        program.chmod(0o755)
