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
    outputs: list[bytes] = []
    times: list[CaseTime] = []
    fault, left = None, most_bytes
    try:
        for case in cases:
            if process.unread():
                raise EndedTalkError("it wrote more than the output")
            output, spent = _ask(process, case, left, first=not outputs)
            left -= len(output)
            outputs.append(output)
            times.append(spent)
    except EndedTalkError as error:
        fault = str(error)
    cpu_s = process.cpu_s()
    # Decoded last: the program could work on while it waits for the next case.
    texts, undecodable = _decode(outputs)
    return CaseAnswers(outputs=texts, times=times[: len(texts)], fault=undecodable or fault, cpu_s=cpu_s)


def ended(answers: CaseAnswers, process: PipedProcess) -> CaseAnswers:
    """Return the answers with how the process ended."""
    end = process.execution
    fault = answers.fault
    if fault and process.ended:
        fault = f"{fault}: return code {end.returncode}"
    return answers.model_copy(
        update={"fault": fault, "errors": end.output, "returncode": end.returncode if answers.fault else 0}
    )


def _ask(process: PipedProcess, case: str, most_bytes: int, *, first: bool) -> tuple[bytes, CaseTime]:
    """Return the output of one case, and its times.

    Args:
        process: The program.
        case: One line.
        most_bytes: Maximum length of the output.
        first: Whether its time begins with that of the program.
    """
    sent = time.monotonic()
    process.send(case.encode() + b"\n")
    _expect(process, b"ready")
    ready = time.monotonic()
    if process.unread():
        raise EndedTalkError("it went on before `go`")
    process.send(b"go\n")
    _expect(process, b"done")
    done = time.monotonic()
    output = process.read_line(most_bytes)
    decode_s = ready - (process.began if first else sent)
    return output, CaseTime(decode_s=decode_s, answer_s=done - ready, encode_s=time.monotonic() - done)


def _expect(process: PipedProcess, word: bytes) -> None:
    line = process.read_line(_WORD_BYTES)
    if line != word:
        raise EndedTalkError(f"it wrote {line[:_SHOWN].decode(errors='replace')!r} where `{word.decode()}` belongs")


def _decode(outputs: Sequence[bytes]) -> tuple[list[str], str | None]:
    """Return the texts of all outputs before the first that is not UTF-8, and what is wrong with that."""
    texts: list[str] = []
    for output in outputs:
        try:
            texts.append(output.decode())
        except UnicodeDecodeError as error:
            return texts, f"its output is not UTF-8: {error.reason} at byte {error.start}"
    return texts, None
