"""Playing: one agent, one problem, one sandbox, to its end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

from rollmill.agents.action_search import ActionSearchError
from rollmill.agents.environment import SandboxEnvironment
from rollmill.agents.mini_swe import DefaultAgent, InterruptAgentFlow
from rollmill.agents.model import BlockingClient, ChatModel, exit_message
from rollmill.agents.settings import AgentSettings
from rollmill.agents.templates import TemplateFailedError
from rollmill.errors import InputError
from rollmill.grading.problem import GradedProblem
from rollmill.inference.client import RequestFailedError
from rollmill.records import Failure, Message, Usage
from rollmill.sandboxes.sandbox import Sandbox, SandboxError

CANCELLED = "cancelled"
"""Type of the error of a rollout that was told to stop."""
FAILED = "error"
"""Exit status where something outside of the agent failed."""
_KEPT = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id")
_KEPT_EXTRA = ("returncode", "exception_info", "finish_reason", "interrupt_type")


@dataclass(frozen=True)
class AgentRun:
    """What an agent did."""

    messages: list[Message]
    """The conversation in OpenAI's shape, malformed answers and errors of tools in it. `extra`: what else is known of a
    message, such as a command's `returncode`."""
    exit_status: str
    """`Submitted`, `LimitsExceeded`, `TimeExceeded`, `RepeatedFormatError`, `ContextLengthExceeded`; `error`."""
    submission: str
    error: Failure | None
    """What failed on the outside, and left the agent no chance."""
    model_calls: int
    """Requests sent, retries included."""
    steps: int
    """Answers that the model was asked for."""
    usage: Usage
    finish_reason: str | None
    """Of the last answer."""
    seconds: float


class _Cancelled(InterruptAgentFlow):
    """The run is ending."""


class _Agent(DefaultAgent):
    """mini-swe-agent's default agent, that can be stopped, and that records what ran before an end came."""

    def __init__(self, *args: Any, stop: threading.Event, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = stop

    def query(self) -> Message:
        """The next answer."""
        self._check_stop()
        answer: Message = super().query()
        return answer

    def execute_actions(self, message: Message) -> list[Message]:
        """Runs an answer's commands, and adds what they did."""
        actions = message["extra"]["actions"]
        outputs: list[dict[str, Any]] = []
        try:
            for action in actions:
                self._check_stop()
                outputs.append(self.env.execute(action))
        finally:
            ran = message | {"extra": {"actions": actions[: len(outputs)]}}
            told = self.model.format_observation_messages(ran, outputs, self.get_template_vars())
            self.add_messages(*told)
        return list(told)

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _Cancelled(exit_message(CANCELLED))


def play(
    problem: GradedProblem,
    *,
    sandbox: Sandbox,
    client: BlockingClient,
    model: str,
    settings: AgentSettings,
    seed: int,
    stop: threading.Event | None = None,
) -> AgentRun:
    """Plays one rollout in a sandbox that is there; `stop` ends it before the next request or command.

    Nothing that the agent does raises: it is the exit status. A sandbox or request that fails for good is the `error`.
    Raises `InputError` where a template cannot be filled in, and `ServingError` where no server is left.
    """
    started = time.monotonic()
    stop = stop or threading.Event()
    ends_at = started + settings.wall_time_limit_s if settings.wall_time_limit_s else None
    chat = ChatModel(client, settings, model=model, seed=seed)
    agent: _Agent | None = None
    error: Failure | None = None
    try:
        environment = SandboxEnvironment(sandbox, settings, cwd=problem.workdir or settings.cwd, ends_at=ends_at)
        agent = _Agent(chat, environment, stop=stop, **_limits(settings))
        agent.run(problem.problem_statement, problem=problem.model_dump())
    except SandboxError as failure:
        error = Failure(type=failure.type, message=str(failure))
    except RequestFailedError as failure:
        error = Failure(type=failure.type, message=failure.message)
    except ActionSearchError as failure:
        error = Failure(type="action_regex", message=str(failure))
    except TemplateFailedError as mistake:
        where = settings.place(mistake.source)
        raise InputError(f"{where} cannot be filled in: {mistake}: correct the template") from mistake
    messages = agent.messages if agent else []
    end = messages[-1]["extra"] if messages and not error else {"exit_status": FAILED, "submission": ""}
    if end["exit_status"] == CANCELLED or (error and stop.is_set()):  # what is ended under it fails
        error, end = Failure(type=CANCELLED, message="the run was stopped"), end | {"exit_status": FAILED}
    return AgentRun(
        messages=[_recorded(message) for message in messages if message["role"] != "exit"],
        exit_status=end["exit_status"],
        submission=end["submission"],
        error=error,
        model_calls=chat.calls,
        steps=chat.asked,
        usage=chat.usage,
        finish_reason=chat.finish_reason,
        seconds=time.monotonic() - started,
    )


def unplayed(error: Failure) -> AgentRun:
    """What there is of an agent that never began."""
    return AgentRun([], FAILED, "", error, model_calls=0, steps=0, usage=Usage(), finish_reason=None, seconds=0.0)


def _limits(settings: AgentSettings) -> dict[str, Any]:
    """The agent's own part of the settings, by mini-swe-agent's names."""
    return {
        "system_template": settings.system_template,
        "instance_template": settings.instance_template,
        "step_limit": settings.step_limit,
        "cost_limit": 0.0,
        "wall_time_limit_seconds": settings.wall_time_limit_s,
        "max_consecutive_format_errors": settings.max_consecutive_format_errors,
    }


def _recorded(message: Message) -> Message:
    """A message for the journal."""
    kept = {key: message[key] for key in _KEPT if key in message}
    extra = {key: value for key in _KEPT_EXTRA if (value := message.get("extra", {}).get(key)) not in (None, "")}
    return kept | ({"extra": extra} if extra else {})
