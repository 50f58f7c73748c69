"""Builds seccomp filters: programs of classic BPF that judge a system call by its number and its arguments."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_FIRST_OF_X32 = 0x40000000
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
"""Offsets in the kernel's `struct seccomp_data`; each argument has 8 bytes, the low half first."""
_LOAD, _AND, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x06
_ALL_BITS = 0xFFFFFFFF
ALLOW, _ERROR = 0x7FFF0000, 0x00050000
REFUSE = _ERROR | errno.ENOSYS

_Step = tuple[int, int, int, int]


@dataclass(frozen=True)
class Condition:
    """A condition on the low 32 bits of an argument: those in `mask` equal one of `values`, or none if not `equal`."""

    argument: int
    values: Sequence[int]
    mask: int = _ALL_BITS
    equal: bool = True


@dataclass(frozen=True)
class CallRule:
    """An error that a system call returns where all conditions hold; error 0 is success without an effect."""

    call: str
    error: int
    conditions: Sequence[Condition] = ()


def build_filter(
    architecture: int, numbers: Mapping[str, int], refused: Sequence[str], rules: Sequence[CallRule]
) -> bytes:
    """Return the filter as `struct sock_filter`s.

    Args:
        architecture: AUDIT_ARCH_* of the calls; calls of any other return ENOSYS.
        numbers: Numbers of all calls that are named.
        refused: Names of calls that return ENOSYS.
        rules: Rules for other calls; the first whose conditions hold decides.
    """
    calls = sorted(numbers[name] for name in set(refused))
    last = len(calls)  # BPF jumps are relative: each skips the rest of the list and the jump that follows it
    program: list[_Step] = [
        (_LOAD, 0, 0, _AT_ARCHITECTURE),
        (_IF_EQUAL, 0, last + 3, architecture),
        (_LOAD, 0, 0, _AT_NUMBER),
        (_IF_AT_LEAST, last + 1, 0, _FIRST_OF_X32),
        *((_IF_EQUAL, last - index, 0, number) for index, number in enumerate(calls)),
        (_JUMP, 0, 0, 1),
        (_RETURN, 0, 0, REFUSE),
    ]
    for name in dict.fromkeys(rule.call for rule in rules):
        block = [step for rule in rules if rule.call == name for step in _rule_steps(rule)]
        block.append((_RETURN, 0, 0, ALLOW))
        program += [(_IF_EQUAL, 0, len(block), numbers[name]), *block]
    program.append((_RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in program)


def _rule_steps(rule: CallRule) -> list[_Step]:
    """Return steps that return the rule's error, or continue after the last of them where a condition does not hold."""
    steps: list[_Step] = [(_RETURN, 0, 0, _ERROR | rule.error)]
    for condition in reversed(rule.conditions):
        beyond = len(steps)  # from the end of this condition's steps to the end of the rule
        count = len(condition.values)
        tests: list[_Step] = []
        for index, value in enumerate(condition.values):
            after = count - 1 - index
            equal = after if condition.equal else after + beyond
            unequal = 0 if after else (beyond if condition.equal else 0)
            tests.append((_IF_EQUAL, equal, unequal, value))
        mask: list[_Step] = [] if condition.mask == _ALL_BITS else [(_AND, 0, 0, condition.mask)]
        steps = [(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * condition.argument), *mask, *tests, *steps]
    return steps
