"""Playing: one agent, one problem, one sandbox, to its end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
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
from rollmill.inference.sampled_tokens import SampledTokens, known_tokens
from rollmill.records import Failure, Message, Usage
from rollmill.sandboxes.sandbox import Sandbox, SandboxError

CANCELLED = "cancelled"
"""Type of the error of a rollout that was told to stop."""
FAILED = "error"
"""Exit status where something outside of the agent failed."""
_KEPT = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "finish_reason", "stop_text")
_KEPT_EXTRA = ("returncode", "exception_info", "interrupt_type", "sent_arguments")


@dataclass(frozen=True)
class AgentRun:
    """What an agent did."""

    messages: list[Message]
    """The conversation in OpenAI's shape, malformed answers and errors of tools in it. `extra`: what else is known of a
    message, such as a command's `returncode`; `sent_arguments`: those of its calls as later requests have them, where
    they were no JSON objects."""
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
    context: dict[str, Any] = field(default_factory=dict)
    """What every request was rendered with beside its messages: `tools`, `chat_template_kwargs`."""
    tokens: tuple[SampledTokens, ...] = ()
    """Of each answer, in order; nothing where they are not recorded."""


class _Cancelled(InterruptAgentFlow):
    """The run is ending."""


class _Agent(DefaultAgent):
    """mini-swe-agent's default agent, that can be stopped, and that records what ran before an end came."""

    def __init__(self, *args: Any, stop: threading.Event, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = stop

    def query(self) -> Message:
        """Return the next answer."""
        self._check_stop()
        answer: Message = super().query()
        return answer

    def execute_actions(self, message: Message) -> list[Message]:
        """Run an answer's commands, and add what they did."""
        actions = message["extra"]["actions"]
        outputs: list[dict[str, Any]] = []
        try:
            for action in actions:
                self._check_stop()
                outputs.append(self.env.execute(action))
        finally:
            ran = message | {"extra": {"actions": actions[: len(outputs)]}}
            observations = self.model.format_observation_messages(ran, outputs, self.get_template_vars())
            self.add_messages(*observations)
        return list(observations)

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
    """Play one rollout in a sandbox that is there; `stop` ends it before the next request or command.

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
        where = settings.template_origin(mistake.source)
        raise InputError(f"{where} cannot be filled in: {mistake}: correct the template") from mistake
    messages = agent.messages if agent else []
    end = messages[-1]["extra"] if messages and not error else {"exit_status": FAILED, "submission": ""}
    if end["exit_status"] == CANCELLED or (error and stop.is_set()):  # what is ended under it fails
        error, end = Failure(type=CANCELLED, message="the run was stopped"), end | {"exit_status": FAILED}
    answers = sum(message["role"] == "assistant" for message in messages)
    return AgentRun(
        messages=[_for_journal(message) for message in messages if message["role"] != "exit"],
        exit_status=end["exit_status"],
        submission=end["submission"],
        error=error,
        model_calls=chat.calls,
        steps=chat.requests,
        usage=chat.usage,
        finish_reason=chat.finish_reason,
        seconds=time.monotonic() - started,
        context=chat.context,
        tokens=known_tokens(chat.tokens[:answers]),
    )


def unplayed(error: Failure) -> AgentRun:
    """Return what there is of an agent that never began."""
    return AgentRun([], FAILED, "", error, model_calls=0, steps=0, usage=Usage(), finish_reason=None, seconds=0.0)


def _limits(settings: AgentSettings) -> dict[str, Any]:
    """Return the agent's own part of the settings, by mini-swe-agent's names."""
    return {
        "system_template": settings.system_template,
        "instance_template": settings.instance_template,
        "step_limit": settings.step_limit,
        "cost_limit": 0.0,
        "wall_time_limit_seconds": settings.wall_time_limit_s,
        "max_consecutive_format_errors": settings.max_consecutive_format_errors,
    }


def _for_journal(message: Message) -> Message:
    """Return a message for the journal."""
    kept = {key: message[key] for key in _KEPT if key in message and (key, message[key]) != ("finish_reason", None)}
    extra = {key: value for key in _KEPT_EXTRA if (value := message.get("extra", {}).get(key)) not in (None, "")}
    return kept | ({"extra": extra} if extra else {})
