"""Counts and names the GPUs that the processes of a job may use, without importing torch or initialising CUDA.

Serving, training and q* all ask `find_gpus`. A name is valid in the `CUDA_VISIBLE_DEVICES` of a child process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rollmill.inference import devices
from rollmill.inference.devices import DEVICE_FILE, VISIBLE, WSL_FILE, ask_nvidia_smi, nvidia_files, wants_cpu

UNKNOWN_MODEL = "a GPU"
_FIELDS = "uuid,mig.mode.current,name"
_ROW = re.compile(r"(?P<uuid>GPU-\S+), (?P<mode>Enabled|Disabled|\[.*?\]), (?P<model>.+)")
_GPU_LINE = re.compile(r"GPU \d+: (.*?)(?: \(UUID: (\S+)\))?$")
_MIG_LINE = re.compile(r"\s+MIG \S+\s+Device\s+\d+: \(UUID: (\S+)\)$")
_OLD_MIG = re.compile(r"MIG-(GPU-.*)/\d+/\d+")
"""A MIG instance in the form of drivers before 470: GPU, GPU instance, compute instance."""
_NO_INSTANCE = "the GPUs here are in MIG mode and have no instance: create one with `nvidia-smi mig -cgi`"
_NUMBER = re.compile(r"\+?\d+", re.ASCII)


class Gpu(NamedTuple):
    """A GPU, or a MIG instance of one."""

    name: str
    """Index, UUID or MIG UUID, as `CUDA_VISIBLE_DEVICES` takes it."""
    model: str = UNKNOWN_MODEL
    uuid: str = ""
    """UUID, under whichever name; empty where it is not known."""

    @property
    def is_mig(self) -> bool:
        """Return whether it is a MIG instance. CUDA shows a process only one of those."""
        return self.name.startswith("MIG-")


@dataclass(frozen=True)
class VisibleGpus:
    """The GPUs that may be used, in CUDA's order."""

    gpus: tuple[Gpu, ...] = ()
    shown: str | None = None
    """`CUDA_VISIBLE_DEVICES`; None where it is not set."""
    fault: str = ""
    """Reason, with the remedy, why GPUs that are named or here cannot be used; empty where there are none."""
    in_use: tuple[Gpu, ...] = ()
    """Further GPUs, which other jobs have reserved."""
    is_cpu_chosen: bool = False
    """True where the environment asks for the CPU."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the GPUs."""
        return tuple(gpu.name for gpu in self.gpus)

    @property
    def models(self) -> list[str]:
        """Return the model name of each GPU."""
        return [gpu.model for gpu in self.gpus]

    def environment(self, names: Sequence[str]) -> dict[str, str]:
        """Return the variable that shows a process these GPUs alone; empty where it inherits just that."""
        value = ",".join(names)
        inherits = value == self.shown if self.shown is not None else tuple(names) == self.names and not self.in_use
        return {} if inherits else {VISIBLE: value}


class _MachineGpu(NamedTuple):
    """A GPU of the machine."""

    name: str
    """CUDA's index."""
    model: str = UNKNOWN_MODEL
    uuid: str = ""
    """Empty where it is not known."""
    instances: tuple[str, ...] = ()
    """UUIDs of its MIG instances."""
    is_shown: bool = True
    """False for one in MIG mode that has no instance: CUDA does not show it."""
    is_order_known: bool = True
    """False where CUDA's index may be that of another GPU: CUDA begins with the fastest, nvidia-smi with the first bus.
    """

    def under(self, name: str) -> Gpu:
        """Return it under a name: its index or its UUID."""
        return Gpu(name, self.model, self.uuid) if self.is_order_known or name == self.uuid else Gpu(name)


def find_gpus(environment: Mapping[str, str] | None = None) -> VisibleGpus:
    """Return the NVIDIA GPUs that a process with this environment may use; none where it asks for the CPU.

    nvidia-smi lists the GPUs. Where it is missing, fails or hangs, the device files are counted. The index of a
    GPU in CUDA is its place in that list: a container with /dev/nvidia3 and /dev/nvidia5 has the GPUs 0 and 1.
    `NVIDIA_VISIBLE_DEVICES` has no effect: it tells a container's runtime what to mount, and here only that counts.

    On a machine with MIG instances each counts as a GPU, by its UUID, after GPUs that are not divided. Indices are
    CUDA's, so that `CUDA_DEVICE_ORDER` means the same in the child that inherits it.
    """
    variables = os.environ if environment is None else environment
    if wants_cpu(variables):
        return VisibleGpus(shown=variables.get(VISIBLE), is_cpu_chosen=True)
    machine = _machine_gpus()
    if variables.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID" and len({gpu.model for gpu in machine}) > 1:
        machine = [gpu._replace(is_order_known=False) for gpu in machine]
    undivided = [gpu for gpu in machine if gpu.is_shown and not gpu.instances]
    is_plain = len(undivided) == len(machine)  # beside GPUs in MIG mode, a UUID is what is certain
    everything = (
        *(gpu.under(gpu.name if is_plain else gpu.uuid or gpu.name) for gpu in undivided),
        *(_instance(name, gpu) for gpu in machine for name in gpu.instances),
    )
    shown = variables.get(VISIBLE)
    if machine and not everything:
        return VisibleGpus(shown=shown, fault=_NO_INSTANCE)
    if shown is None or not machine:
        return VisibleGpus(everything, shown)
    listed, fault = _parse(shown, machine)
    return VisibleGpus(tuple(listed), shown, fault and f"{VISIBLE} is {shown!r}: {fault}")


def _parse(shown: str, machine: Sequence[_MachineGpu]) -> tuple[list[Gpu], str]:
    """Return the GPUs that `CUDA_VISIBLE_DEVICES` shows, and the reason why these are fewer than it names.

    As CUDA does: the list ends at the first entry that is no GPU of the machine, of an entry that begins with a number
    only the number counts, a UUID may be cut short, and a GPU that is named twice hides all (`_parse_visible_devices`
    and `_transform_uuid_to_ordinals` in https://github.com/pytorch/pytorch/blob/main/torch/cuda/__init__.py).
    """
    listed: list[Gpu] = []
    seen: set[str] = set()
    for entry in (part.strip() for part in shown.split(",")):
        gpu = _find(entry, machine)
        if gpu is None:
            rest = shown.split(",")[len(listed) + 1 :]
            is_end = not entry or entry.startswith("-")  # "0,1," and "0,1,-1" are meant to end there
            return listed, "" if listed and is_end and not any(map(str.strip, rest)) else _fault_of(entry, machine)
        key = gpu.uuid or gpu.name  # one GPU may have two names
        if key in seen:
            return [], f"{gpu.name} is named twice, and then CUDA shows none: name each once"
        seen.add(key)
        listed.append(gpu)
    return listed, ""


def _fault_of(entry: str, machine: Sequence[_MachineGpu]) -> str:
    indices = "is 0" if len(machine) == 1 else f"are 0 to {len(machine) - 1}"
    return f"CUDA ends the list at {entry!r}, which is no GPU here: name others, by index they {indices}"


def _find(entry: str, machine: Sequence[_MachineGpu]) -> Gpu | None:
    """Return the GPU that one entry of `CUDA_VISIBLE_DEVICES` names; None where there is no such GPU."""
    if number := _NUMBER.match(entry):
        index = int(number[0])
        return _first_of(machine[index], str(index)) if index < len(machine) and machine[index].is_shown else None
    if entry.startswith("GPU-"):
        if not all(gpu.uuid for gpu in machine):
            return Gpu(entry)  # no UUIDs to compare with
        matches = [gpu for gpu in machine if gpu.uuid.startswith(entry) and gpu.is_shown]
        return _first_of(matches[0], matches[0].uuid) if len(matches) == 1 else None
    if not entry.startswith("MIG-"):
        return None
    return _find_instance(entry, machine)


def _find_instance(entry: str, machine: Sequence[_MachineGpu]) -> Gpu | None:
    known = {name: gpu for gpu in machine for name in gpu.instances}
    matches = [name for name in known if name.startswith(entry)]
    if len(matches) == 1:
        return _instance(matches[0], known[matches[0]])
    old = _OLD_MIG.fullmatch(entry)
    on_known_gpu = old is not None and any(gpu.uuid.startswith(old[1]) for gpu in machine if gpu.instances)
    # Without UUIDs there is nothing to compare with: CUDA decides.
    return Gpu(entry) if on_known_gpu or not any(gpu.uuid for gpu in machine) else None


def _first_of(gpu: _MachineGpu, name: str) -> Gpu:
    """Return a GPU under a name; of a divided one the first instance, which is what CUDA shows."""
    return _instance(gpu.instances[0], gpu) if gpu.instances else gpu.under(name)


def _instance(name: str, gpu: _MachineGpu) -> Gpu:
    """Return a MIG instance of a GPU."""
    return Gpu(name, f"{gpu.model} (MIG)", name)


def _machine_gpus() -> list[_MachineGpu]:
    """Return the GPUs of this machine or container, in CUDA's order."""
    files = [Path(path).name for path in nvidia_files()]
    if not files:
        return []
    if listed := _listed_by_nvidia_smi():
        return listed
    minors = sorted(int(match[1]) for name in files if (match := DEVICE_FILE.fullmatch(name)))
    if not minors:
        return [_MachineGpu("0")] if WSL_FILE in files else []
    facts = _driver_facts()
    return [_MachineGpu(str(index), *facts.get(minor, (UNKNOWN_MODEL, ""))) for index, minor in enumerate(minors)]


def _listed_by_nvidia_smi() -> list[_MachineGpu]:
    """Return the GPUs that nvidia-smi lists, with their MIG instances.

    Without persistence mode each call initialises every GPU, so that one call has to do where none is in MIG mode. It
    fails with drivers that do not know MIG.
    """
    rows = [_ROW.fullmatch(line) for line in ask_nvidia_smi(f"--query-gpu={_FIELDS}", "--format=csv,noheader")]
    matches = [row for row in rows if row]
    if not matches or len(matches) < len(rows):
        return _listed_with_instances()
    if not any(row["mode"] == "Enabled" for row in matches):
        return [_MachineGpu(str(index), row["model"], row["uuid"]) for index, row in enumerate(matches)]
    in_mig_mode = {row["uuid"] for row in matches if row["mode"] == "Enabled"}
    listed = _listed_with_instances()
    return [gpu._replace(is_shown=bool(gpu.instances) or gpu.uuid not in in_mig_mode) for gpu in listed]


def _listed_with_instances() -> list[_MachineGpu]:
    """Return the GPUs and MIG instances of `nvidia-smi -L`."""
    gpus: list[_MachineGpu] = []
    for line in ask_nvidia_smi("-L"):
        if match := _GPU_LINE.match(line):
            gpus.append(_MachineGpu(str(len(gpus)), match[1], match[2] or ""))
        elif gpus and (match := _MIG_LINE.match(line)):
            gpus[-1] = gpus[-1]._replace(instances=(*gpus[-1].instances, match[1]))
    return gpus


def _driver_facts() -> dict[int, tuple[str, str]]:
    """Return model and UUID of each GPU by the number of its device file, from the driver's files in /proc."""
    facts: dict[int, tuple[str, str]] = {}
    for path in sorted((devices.DRIVER / "gpus").glob("*/information")):
        lines = (line.partition(":") for line in path.read_text(errors="replace").splitlines())
        fields = {name.strip(): value.strip() for name, _, value in lines}
        if (minor := fields.get("Device Minor", "")).isdecimal():
            uuid = fields.get("GPU UUID", "")
            facts[int(minor)] = fields.get("Model", UNKNOWN_MODEL), "" if "?" in uuid else uuid  # "?" until first used
    return facts
