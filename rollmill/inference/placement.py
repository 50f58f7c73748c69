"""Places the processes of a job on GPUs, or refuses in one line. Pure functions of the visible GPUs and the flags.

The tables in `docs/operations/gpus.md` show what they decide; `tests/documentation/test_gpus.py` tests each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from rollmill.errors import InputError
from rollmill.inference.devices import SHARE, VISIBLE
from rollmill.inference.server_size import MEMORY, ServerSize
from rollmill.inference.visible_gpus import Gpu, VisibleGpus

T = TypeVar("T")

_MEMORY_SHARE = 0.9
"""vLLM's default share of a GPU's memory, for the servers on one GPU together."""


class ServerPlace(NamedTuple):
    """The GPUs of one server."""

    gpus: tuple[str, ...]
    """Names of its GPUs; empty where vLLM itself looks for them, and on the CPU."""
    memory: float | None = None
    """Share of the GPU's memory, where several servers share it; None for vLLM's default."""


class _Remedy(NamedTuple):
    """A flag that uses more GPUs, and how many."""

    flag: str
    gpus: int


@dataclass(frozen=True)
class Placement:
    """The GPUs of each process of a job."""

    processes: tuple[tuple[str, ...], ...]
    """Names of each process's GPUs; empty for the CPU, and where a process looks for them itself."""
    environments: tuple[dict[str, str], ...]
    """Variables to set for each process."""
    notes: tuple[str, ...] = field(default=())
    """What the user should know: GPUs that stay idle, and how to use them."""


def place_servers(gpus: VisibleGpus, count: int, size: ServerSize) -> list[ServerPlace]:
    """Return the GPUs of each of `count` servers that one process starts.

    Each has its own GPUs, as many as it takes. If there are fewer GPUs than servers, the servers are spread over them,
    and those on one GPU share its memory equally. Raises `InputError` where they do not fit.
    """
    if not count or size.is_distributed:
        return [ServerPlace(())] * count
    check_visible(gpus)
    names = gpus.names
    if not names:
        return [ServerPlace(())] * count
    if count * size.gpus <= len(names):
        _check_undivided(names[: count * size.gpus], size.gpus, size.flags)
        return [ServerPlace(part) for part in _parts(names, count, size.gpus)]
    if size.gpus > 1:
        several = f" for each of {count} servers" if count > 1 else ""
        raise InputError(
            f"--vllm_args: {size.flags} takes {size.gpus} GPUs{several}, and there {_are(gpus)}: give a smaller size"
        )
    sharing = [len(range(index % len(names), count, len(names))) for index in range(count)]
    if size.memory is not None and max(sharing) * size.memory > 1:
        raise InputError(
            f"--vllm_args: {MEMORY} {size.memory:g} for each of {max(sharing)} servers on one GPU is more than its "
            f"memory: give {_share(max(sharing)):g} or less, or leave it out"
        )
    return [
        ServerPlace((names[index % len(names)],), None if number == 1 or size.memory else _share(number))
        for index, number in enumerate(sharing)
    ]


def place_workers(gpus: VisibleGpus, workers: int, servers: int, size: ServerSize) -> Placement:
    """Return the GPUs of each worker process, of which each starts `servers` servers.

    A worker gets as many GPUs as its servers take, or, where they share, an equal part of all. Raises `InputError`
    where there are too few.

    Args:
        gpus: The visible GPUs.
        workers: Number of worker processes.
        servers: Number of servers of each worker.
        size: What each server takes.
    """
    unplaced = Placement(((),) * workers, ({},) * workers)
    if not servers or size.is_distributed:
        return unplaced
    check_visible(gpus)
    if not gpus.names:
        return unplaced
    needed, available = servers * size.gpus, len(gpus.names)
    each = min(needed, max(1, available // workers)) if size.gpus == 1 else needed
    if workers * each > available:
        flags = f" with {size.flags}" if size.flags else ""
        per_worker = f", and each worker takes {each}" if each > 1 else ""
        most = available // each
        remedy = f"give at most {most}" if most else "give a smaller size"
        raise InputError(f"--gpu_workers {workers}{flags}: there {_are(gpus)}{per_worker}: {remedy}")
    parts = _parts(gpus.gpus, workers, each)
    assignments = [place_servers(replace(gpus, gpus=part), servers, size) for part in parts]
    names = tuple(tuple(gpu.name for gpu in part) for part in parts)
    more = _more("--gpu_workers", available // each, each, workers * each)
    notes = [*_sharing_notes(assignments[0], "on each worker "), *_notes(gpus, workers * each, more)]
    return Placement(names, tuple(gpus.environment(part) for part in names), tuple(notes))


def place_in_process(gpus: VisibleGpus, servers: int, size: ServerSize) -> Placement:
    """Return the GPUs of each server that the job's own process starts. Raises `InputError` as `place_servers` does."""
    assignments = place_servers(gpus, servers, size)
    used = len({name for assignment in assignments for name in assignment.gpus})
    more = _more("--gpu_workers", len(gpus.names) // used, used, used) if used else None
    return Placement(
        tuple(assignment.gpus for assignment in assignments),
        tuple(gpus.environment(assignment.gpus) if assignment.gpus else {} for assignment in assignments),
        (*_sharing_notes(assignments), *_notes(gpus, used, more)) if used else (),
    )


def place_samplers(gpus: VisibleGpus, workers: int | None, devices: Sequence[str]) -> Placement:
    """Return the GPUs of each process of q* sampling, which holds both models.

    One process for each GPU, or `workers` processes. Named devices, such as `cuda:1`, are those of one process; where
    they name the first GPUs, each of several workers counts its own GPUs from 0. Raises `InputError` for fewer GPUs
    than processes, and for a device that is not there.

    Args:
        gpus: The visible GPUs.
        workers: Number of processes; None for one for each GPU.
        devices: Device of pi_theta and, if it is another one, of pi_t: `auto`, `cpu`, `cuda`, `cuda:1`, ...
    """
    count = workers or 1
    on_gpu = [device for device in dict.fromkeys(devices) if device.startswith(("auto", "cuda"))]
    unplaced = Placement(((),) * count, ({},) * count)
    if not on_gpu:
        return unplaced
    check_visible(gpus, on_gpu[0])
    if not gpus.names:
        return unplaced
    if all(device in ("auto", "cuda") for device in on_gpu):
        return _place_samplers_anywhere(gpus, workers or len(gpus.names), 1)
    indices = sorted({_index(device, gpus) for device in on_gpu})
    if count > 1 and indices == list(range(len(indices))):
        return _place_samplers_anywhere(gpus, count, len(indices))
    if count > 1:
        raise InputError(
            f"--gpu_workers {count}: --device {devices[0]} names the GPU of one process: give cuda, and a GPU to each"
        )
    names = tuple(gpus.names[index] for index in indices)
    if indices[-1] > 0 and any(gpu.is_mig for gpu in gpus.gpus):
        raise InputError(
            f"--device {on_gpu[-1]}: CUDA shows a process only one MIG instance: give cuda, and choose by {VISIBLE}"
        )
    more = None
    if indices == list(range(len(indices))):
        more = _more("--gpu_workers", len(gpus.names) // len(indices), len(indices), len(indices))
    environment = gpus.environment(names) if indices[-1] == 0 else {}
    return Placement((names,), (environment,), tuple(_notes(gpus, len(names), more)))


def _place_samplers_anywhere(gpus: VisibleGpus, workers: int, each: int) -> Placement:
    """Return the GPUs of processes of which each takes the next `each` GPUs."""
    available = len(gpus.names)
    if workers * each > available:
        per_worker = f", and each worker takes {each}" if each > 1 else ""
        raise InputError(f"--gpu_workers {workers}: there {_are(gpus)}{per_worker}: give at most {available // each}")
    parts = _parts(gpus.names, workers, each)
    for part in parts:
        _check_undivided(part, each, "--device_t")
    notes = _notes(gpus, workers * each, _more("--gpu_workers", available // each, each, workers * each))
    return Placement(parts, tuple(gpus.environment(part) for part in parts), tuple(notes))


def _index(device: str, gpus: VisibleGpus) -> int:
    """Return the place of a named device among the visible GPUs. Raises `InputError` where it is not there."""
    text = device.partition(":")[2] or "0"
    if text.isdecimal() and int(text) < len(gpus.names):
        return int(text)
    last = len(gpus.names) - 1
    raise InputError(f"--device {device}: there {_are(gpus)}: give cuda:0{f' to cuda:{last}' if last else ''}")


def place_training(gpus: VisibleGpus, num_gpus: int, device: str) -> Placement:
    """Return the GPUs of a training, the first `num_gpus`; none on the CPU.

    Raises `InputError` for fewer GPUs, and for several MIG instances, which NCCL does not join.
    """
    hidden = {VISIBLE: ""}  # on the CPU no library in the worker sees a GPU
    if num_gpus == 0 or device == "cpu":
        return Placement(((),), (hidden,))
    check_visible(gpus, device)
    if num_gpus > max(1, len(gpus.names)):
        remedy = f"give at most {len(gpus.names)}" if gpus.names else "leave it out, and the CPU trains"
        raise InputError(f"--num_gpus {num_gpus}: there {_are(gpus)}: {remedy}")
    if not gpus.names:  # where the driver is here, torch has to say why there is none: not hidden from it
        return Placement(((),), (hidden if gpus.is_cpu_chosen else {},))
    names = gpus.names[:num_gpus]
    _check_undivided(names, num_gpus, f"--num_gpus {num_gpus}")
    undivided = sum(not gpu.is_mig for gpu in gpus.gpus)
    notes = _notes(gpus, num_gpus, _more("--num_gpus", undivided, 1, num_gpus))
    return Placement((names,), ({VISIBLE: ",".join(names)},), tuple(notes))


def in_use_message(gpus: Sequence[Gpu]) -> str:
    """Return the refusal for GPUs that other jobs use."""
    names = ", ".join(gpu.name for gpu in gpus)
    return (
        f"in use by another job: GPU {names}: wait for its end, choose another by {VISIBLE}, or let jobs share it: by "
        f"a {MEMORY} in the --vllm_args of all, or {SHARE}=1"
    )


def check_visible(gpus: VisibleGpus, device: str = "auto") -> None:
    """Check that there is a GPU if there should be one.

    Raises `InputError` where `CUDA_VISIBLE_DEVICES` hides all GPUs by mistake, other jobs use them, or a `cuda` device
    is not there.
    """
    if gpus.names:
        return
    if gpus.in_use:
        raise InputError(in_use_message(gpus.in_use))
    if gpus.fault:
        raise InputError(gpus.fault)
    if device.startswith("cuda"):
        hidden = f", and {VISIBLE} is {gpus.shown!r}" if gpus.shown is not None else ""
        raise InputError(f"--device {device}: this machine shows no GPU{hidden}: give cpu")


def _parts(names: Sequence[T], count: int, each: int) -> tuple[tuple[T, ...], ...]:
    """Return the first `count` groups of `each` names."""
    return tuple(tuple(names[index * each : (index + 1) * each]) for index in range(count))


def _check_undivided(names: Sequence[str], each: int, flags: str) -> None:
    """Raise `InputError` where one process would have to use several MIG instances, of which CUDA shows it one."""
    if each > 1 and any(name.startswith("MIG-") for name in names):
        raise InputError(f"{flags}: CUDA shows a process only one MIG instance: give 1, or GPUs that are not divided")


def _sharing_notes(assignments: Sequence[ServerPlace], where: str = "") -> list[str]:
    """Return a note for servers that share a GPU."""
    shares = sorted({assignment.memory for assignment in assignments if assignment.memory is not None})
    if not shares:
        return []
    return [f"{where}servers share a GPU, with {' or '.join(f'{share:g}' for share in shares)} of its memory each"]


def _notes(gpus: VisibleGpus, used: int, more: _Remedy | None) -> list[str]:
    """Return what to say of the use of the GPUs; `more` is the flag that uses more of them, None for none."""
    notes = [gpus.fault] if gpus.fault else []
    if used < len(gpus.names):
        way = f": {more.flag} uses {'all' if more.gpus == len(gpus.names) else more.gpus}" if more else ""
        kind = "free GPUs" if gpus.in_use else "GPUs"
        notes.append(f"{used} of {len(gpus.names)} {kind} {'is' if used == 1 else 'are'} used{way}")
    return notes


def _more(flag: str, number: int, each: int, used: int) -> _Remedy | None:
    """Return a flag that uses more GPUs; None where it does not.

    Args:
        flag: The flag.
        number: Its value.
        each: GPUs of each process.
        used: Number of GPUs that are used without it.
    """
    return _Remedy(f"{flag} {number}", number * each) if number * each > used else None


def _share(count: int) -> float:
    """Return the share of a GPU's memory for each of several servers on it, rounded down to thousandths."""
    return int(1000 * _MEMORY_SHARE / count) / 1000


def _are(gpus: VisibleGpus) -> str:
    count = len(gpus.names)
    more = f", and {len(gpus.in_use)} more in use by other jobs" if gpus.in_use else ""
    return f"{'is 1 GPU' if count == 1 else f'are {count} GPUs'} here{more}"
