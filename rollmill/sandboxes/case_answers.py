"""Has a program in a sandbox answer cases one at a time, and measures each from outside.

The protocol is of lines, on the program's standard input and output:

    here:    the case
    program: ready      it has decoded the case
    here:    go
    program: done       it has called the code under test
    program: the output, one line: all results, encoded

The program gets a case only after the previous output has arrived, so that it cannot know cases in advance. The end
of its input ends it. What it writes to standard error is kept, and means nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from rollmill.sandboxes.piped_process import EndedTalkError, PipedProcess
from rollmill.sandboxes.sandbox import CaseAnswers, CaseTime

_WORD_BYTES = 100
_SHOWN = 60


def ask_cases(process: PipedProcess, cases: Sequence[str], most_bytes: int) -> CaseAnswers:
    """Hold the conversation; return the outputs so far where the program does not keep to the protocol.

    Call `ended` on the result when the process has ended.
    """
    outputs: list[str] = []
    times: list[CaseTime] = []
    fault, left, last = None, most_bytes, process.began
    try:
        for number, case in enumerate(cases):
            if process.unread():
                raise EndedTalkError("it wrote more than the output")
            sent = time.monotonic() if number else process.began
            output, spent = _ask(process, case, sent, left)
            left -= len(output)
            outputs.append(_decode(output))
            times.append(spent)
            last = sent + spent.decode_s + spent.answer_s + spent.encode_s
    except EndedTalkError as error:
        fault = str(error)
    return CaseAnswers(
        outputs=outputs, times=times, fault=fault, cpu_s=process.cpu_s(), seconds=max(last - process.began, 0.0)
    )


def ended(answers: CaseAnswers, process: PipedProcess) -> CaseAnswers:
    """Return the answers with how the process ended."""
    end = process.execution
    fault = answers.fault
    if fault and process.ended:
        fault = f"{fault}: return code {end.returncode}"
    return answers.model_copy(
        update={"fault": fault, "errors": end.output, "returncode": end.returncode if answers.fault else 0}
    )


def _ask(process: PipedProcess, case: str, sent: float, most_bytes: int) -> tuple[bytes, CaseTime]:
    """Return the output of one case, and its times.

    Args:
        process: The program.
        case: One line.
        sent: When the case's time began.
        most_bytes: Maximum length of the output.
    """
    process.send(case.encode() + b"\n")
    _expect(process, b"ready")
    ready = time.monotonic()
    if process.unread():
        raise EndedTalkError("it went on before `go`")
    process.send(b"go\n")
    _expect(process, b"done")
    done = time.monotonic()
    output = process.read_line(most_bytes)
    return output, CaseTime(decode_s=ready - sent, answer_s=done - ready, encode_s=time.monotonic() - done)


def _expect(process: PipedProcess, word: bytes) -> None:
    line = process.read_line(_WORD_BYTES)
    if line != word:
        raise EndedTalkError(f"it wrote {line[:_SHOWN].decode(errors='replace')!r} where `{word.decode()}` belongs")


def _decode(output: bytes) -> str:
    try:
        return output.decode()
    except UnicodeDecodeError as error:
        raise EndedTalkError(f"its output is not UTF-8: {error.reason} at byte {error.start}") from None
