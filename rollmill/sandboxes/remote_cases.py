"""Has a program in a service's sandbox answer cases: the service holds the conversation, so no network is measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rollmill.inference.http_service import CallFailedError, ServiceConnection
from rollmill.sandboxes.sandbox import CaseAnswers, SandboxError
from rollmill.sandboxes.shell import printable

PIECE_CHARACTERS = 500_000
"""Of the cases in one request: at most 3 MB as JSON, below what services accept."""
_SEND_S = 60.0


def answer_at_service(
    connection: ServiceConnection,
    sandbox_id: str,
    command: str,
    cases: Sequence[str],
    *,
    timeout_s: float,
    slack_s: float,
    most_bytes: int,
    env: Mapping[str, str],
) -> CaseAnswers:
    """Send the cases, then request the answers; see `Sandbox.answer_cases`. Raises `SandboxError`.

    Args:
        connection: To the service.
        sandbox_id: The service's `container_id`.
        command: Text for `bash -c`.
        cases: One line each, without its end.
        timeout_s: Time limit of all cases together, in seconds.
        slack_s: Seconds to wait for the answer beyond that.
        most_bytes: Maximum of all outputs together.
        env: More environment variables.
    """
    try:
        for first, text in _pieces("\n".join(cases)):
            body = {"container_id": sandbox_id, "text": text, "first": first}
            connection.post("/cases", body, timeout_s=_SEND_S)
        answer = connection.post(
            "/answer_cases",
            {
                "container_id": sandbox_id,
                "command": printable(command),
                "timeout_s": timeout_s,
                "most_bytes": most_bytes,
                "env": {printable(name): printable(value) for name, value in env.items()},
            },
            timeout_s=timeout_s + slack_s,
        )
    except CallFailedError as failure:
        if failure.status in (404, 405) and "there is no sandbox" not in str(failure):
            raise SandboxError(refusal(connection), type_="no_cases") from failure
        error_type = "unknown_sandbox" if failure.status == 404 else failure.type
        raise SandboxError(str(failure), type_=error_type) from failure
    try:
        return CaseAnswers.model_validate(answer)
    except ValueError as error:
        raise SandboxError(f"the sandbox service's answer is none: {error}", type_="malformed_answer") from error


def refusal(connection: ServiceConnection) -> str:
    """Return what to do where the service's sandboxes cannot answer cases."""
    return (
        f"the sandbox service at {connection.url} has no /cases, and cannot grade problems with worker_command: "
        "start the service from this release of rollmill"
    )


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """Yield the text in pieces, each with whether it is the first."""
    for begin in range(0, max(len(text), 1), PIECE_CHARACTERS):
        yield begin == 0, text[begin : begin + PIECE_CHARACTERS]
