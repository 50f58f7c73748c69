"""Finds what may be no real speed and cannot be prevented, for a person to look at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import fmean, median

from rollmill.grading.case_measurement import Charge, decode_s, encode_s
from rollmill.sandboxes.sandbox import CaseAnswers

IN_ONE_PROCESS = (
    "inputs, outputs and the code under test share a process (benchmark_command alone): give the problem "
    "inputs_command and worker_command"
)

_STARTED_S, _CHARGED_S, _CHARGED = 0.03, 0.01, 0.02
"""A charge has a flag above these seconds and this share of the start commit's time; below is noise."""
_SAVED_S, _SAVED = 0.005, 0.4
_MORE_CORES = 0.25
_SLOWED, _LEAST_ORDERED = 1.2, 2
_LEAST_MEASURED_S = 0.3
"""CPU times have a resolution of 10 ms: less is not compared."""
_FILE = re.compile(r"^\+\+\+ (?:b/)?(.*)$")

_PATTERNS = {
    "looks at the callers' frames": r"_getframe|\bcurrentframe\b|\btb_frame\b|\bf_back\b|\bf_locals\b|\bgi_frame\b",
    "uses inspect": r"\b(?:import|from)\s+inspect\b|\binspect\.\w",
    "looks for objects through gc": r"\bgc\.(?:get_|callbacks)",
    "switches garbage collection off": r"\bgc\.(?:disable|freeze|set_threshold)\b",
    "changes its priority": r"\bos\.(?:nice|sched_|setpriority)|\b(?:nice|setpriority|sched_set\w+|mlockall)\s*\(",
    "traces or profiles": r"\bset(?:trace|profile)\b|\bsys\.monitoring\b",
    "reaches into the interpreter": r"\bctypes\b|\bcffi\b|\b_ctypes\b|__subclasses__|\b__globals__\b|\b__builtins__\b",
    "changes or reads other modules": r"\bsys\.modules\b|\bimportlib\b|__import__\s*\(|\b__main__\b|\bbuiltins\b",
    "uses the test runner": r"\b(?:unittest|pytest|doctest)\b",
    "runs code at the end of the process": (
        r"\batexit\b|\bon_exit\s*\(|\b_exit\s*\(|\bweakref\.finalize\b|\bdef\s+__del__\b"
    ),
    "runs in parallel": (
        r"\bthreading\b|\b_thread\b|\bmultiprocessing\b|\bconcurrent\.futures\b|\bos\.fork\b|\bv?fork\s*\(|"
        r"\bpthread_create\b|\bthrd_create\b|\bsubprocess\b|\bposix_spawn\w*|\bos\.popen\b|\bclone\s*\(|\bomp\b|\basyncio\b"
    ),
    "reads the benchmark's variables": r"BENCH_(?:SEED|PART)|\bos\.environ\b|\bgetenv\b|\benviron\b",
    "talks on standard input or output": (
        r"\bsys\.(?:__)?std(?:in|out)|\bos\.(?:read|write|dup2?|pipe)\s*\(|\bSTD(?:IN|OUT)_FILENO\b|"
        r"\b(?:fd)?open\s*\(\s*\d|\bdup2\s*\("
    ),
    "replaces the clock": r"\btime\.(?:time|monotonic|perf_counter|process_time)\w*\s*=|\bclock_gettime\b",
    "reads /proc, /dev or /tmp": r"[\"'](?:/proc|/dev|/sys|/tmp|/var/tmp)\b",
    "keeps results by an object's identity": r"(?<![\w.])id\s*\(|\bWeak(?:Key|Value)Dictionary\b",
    "pretends to be equal": r"\bdef\s+__(?:eq|ne|hash|instancecheck|class)__\b",
    "runs before main": (
        r"__attribute__\s*\(\(\s*_*(?:constructor|destructor|ifunc|section|alias|weak)|\.init_array|\bgnu::constructor"
    ),
    "interposes on functions of the C library": (
        r"\bdlsym\b|\bdlopen\b|\bRTLD_NEXT\b|--wrap|\bLD_PRELOAD\b|\bmprotect\b"
    ),
    "has assembler": r"\b(?:__asm__|__asm|asm)\b\s*(?:volatile|__volatile__|goto)?\s*[({]|\bsyscall\s*\(",
    "handles signals": r"\bsignal\.\w|\bsigaction\b|\bsetitimer\b|\bptrace\b|\bos\.kill\b|\bkill\s*\(",
    "runs text as code": r"(?<![\w.])(?:eval|exec|compile)\s*\(",
}  # fmt: skip
_COMPILED = {name: re.compile(pattern) for name, pattern in _PATTERNS.items()}
_LONGEST_LINE = 2000
_SHOWN = 100


def patch_flags(diff: str) -> list[str]:
    """Return a flag for each kind of suspicious code that a patch adds, with the first place.

    It is a hint, and no proof either way: code can be written so that it is not found here.
    """
    flags: dict[str, str] = {}
    path, in_hunk = "", False
    for line in diff.splitlines():
        if line.startswith("diff --git "):
            in_hunk = False
        elif line.startswith("@@"):
            in_hunk = True
        elif not in_hunk:
            if header := _FILE.match(line):
                path = header[1]
        elif line.startswith("+"):
            text = line[1 : _LONGEST_LINE + 1]
            for name, pattern in _COMPILED.items():
                if name not in flags and pattern.search(text):
                    flags[name] = f"{name}: {path}: {text.strip()[:_SHOWN]}"
    return list(flags.values())


def fewer_lines(lines: int, at_start: int) -> list[str]:
    """Return a flag where the tests print fewer lines than at the start commit."""
    return [f"the tests say less than at the start commit: {lines} lines, not {at_start}"] if lines < at_start else []


def measured_flags(before: Sequence[CaseAnswers], after: Sequence[CaseAnswers], charge: Charge) -> list[str]:
    """Return flags for work outside of the measured calls, and for work on more cores than at the start commit."""
    flags = []
    share_s = _CHARGED * fmean(run.answer_s for run in before)
    for charged_s, least_s, what in (
        (charge.start_s, _STARTED_S, "starting up and importing"),
        (charge.decode_s, _CHARGED_S, "before the calls"),
        (charge.encode_s, _CHARGED_S, "after the calls"),
    ):
        if charged_s > max(least_s, share_s):
            longer = f"{what} it takes {charged_s * 1000:.1f} ms a run longer than the start commit"
            flags.append(f"untimed work was charged: {longer}")
    for part, what in ((decode_s, "before"), (encode_s, "after")):
        saved_s = fmean(map(part, before)) - fmean(map(part, after))
        if saved_s > max(_SAVED_S, _SAVED * fmean(map(part, before))):
            flags.append(
                f"untimed work became less: {what} the calls it takes {saved_s * 1000:.1f} ms less than the start "
                "commit, so that it could work there instead"
            )
    cores, at_start = _cores(after), _cores(before)
    if cores is not None and at_start is not None and cores > at_start + _MORE_CORES:
        flags.append(f"it uses {cores:.1f} cores, not {at_start:.1f}: it may be parallel, not faster")
    return flags


def slowed_flags(before: Sequence[CaseAnswers], changed_first: Sequence[bool]) -> list[str]:
    """Return a flag where the start commit is slower directly after a run with the change, which may disturb it.

    Args:
        before: The start commit's runs.
        changed_first: For each, whether a run with the change came directly before.
    """
    times: dict[bool, list[float]] = {False: [], True: []}
    for run, after_change in zip(before, changed_first, strict=True):
        times[after_change].append(run.answer_s)
    if min(map(len, times.values())) < _LEAST_ORDERED or min(times[True]) <= _SLOWED * median(times[False]):
        return []
    return [
        f"the start commit takes {min(times[True]) * 1000:.0f} ms and more directly after the change, "
        f"{median(times[False]) * 1000:.0f} ms otherwise: the change may slow it"
    ]


def _cores(runs: Sequence[CaseAnswers]) -> float | None:
    """Return CPU seconds over wall seconds; None where too little was measured."""
    wall_s = sum(run.seconds for run in runs)
    if wall_s < _LEAST_MEASURED_S or any(run.cpu_s is None for run in runs):
        return None
    return sum(run.cpu_s or 0.0 for run in runs) / wall_s
