"""Runs one agent on one problem in one sandbox to its end."""

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
"""Error type of a rollout that was cancelled with its run."""
FAILED = "error"
"""Exit status if something outside of the agent failed."""
_KEPT = ("role", "content", "reasoning_content", "tool_calls", "tool_call_id", "finish_reason", "stop_text")
_KEPT_EXTRA = ("returncode", "exception_info", "interrupt_type", "sent_arguments")


@dataclass(frozen=True)
class AgentRun:
    """The result of one agent: its conversation, how it ended, and what it used."""

    messages: list[Message]
    """The conversation in OpenAI's format, including malformed answers and tool errors. `extra`: more facts about a
    message, such as a command's `returncode`; `sent_arguments`: its calls' arguments as later requests contain them,
    if they were no JSON objects."""
    exit_status: str
    """`Submitted`, `LimitsExceeded`, `TimeExceeded`, `RepeatedFormatError`, `ContextLengthExceeded`; `error`."""
    submission: str
    error: Failure | None
    """The failure outside of the agent that ended it."""
    model_calls: int
    """Requests sent, retries included."""
    steps: int
    """Assistant turns requested."""
    usage: Usage
    finish_reason: str | None
    """Of the last answer."""
    seconds: float
    context: dict[str, Any] = field(default_factory=dict)
    """Inputs of the chat template beside the messages: `tools`, `chat_template_kwargs`."""
    tokens: tuple[SampledTokens, ...] = ()
    """Sampled tokens of each answer, in order; empty if they are not recorded."""


class _Cancelled(InterruptAgentFlow):
    """The run is ending."""


class _Agent(DefaultAgent):
    """mini-swe-agent's default agent that can be stopped, and that records the commands run before an early end."""

    def __init__(self, *args: Any, stop: threading.Event, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._stop = stop

    def query(self) -> Message:
        """Return the next answer, unless the run is stopped."""
        self._check_stop()
        answer: Message = super().query()
        return answer

    def execute_actions(self, message: Message) -> list[Message]:
        """Run an answer's commands and add their observations, also those before a failure."""
        actions = message["extra"]["actions"]
        outputs: list[dict[str, Any]] = []
        try:
            for action in actions:
                self._check_stop()
                outputs.append(self.env.execute(action))
        finally:
            executed = message | {"extra": {"actions": actions[: len(outputs)]}}
            observations = self.model.format_observation_messages(executed, outputs, self.get_template_vars())
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
    """Run one rollout in a started sandbox.

    Nothing that the agent does raises: it becomes the exit status. A sandbox or request that fails permanently becomes
    the `error`. Raises `InputError` if a template cannot be rendered, and `ServingError` if no server is left.

    Args:
        problem: Its statement and fields fill the templates.
        sandbox: Where commands run; not closed here.
        client: Sends the model's requests.
        model: Served model name.
        settings: Templates, limits and sampling fields.
        seed: Seed of the rollout's requests.
        stop: When set, ends the rollout before its next request or command; None for never.
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
    # Stopping a run ends its servers and sandboxes, so a failure after `stop` is a consequence of the stop.
    if end["exit_status"] == CANCELLED or (error and stop.is_set()):
        error, end = Failure(type=CANCELLED, message="the run was stopped"), end | {"exit_status": FAILED}
    answers = sum(message["role"] == "assistant" for message in messages)
    return AgentRun(
        messages=[_for_journal(message) for message in messages if message["role"] != "exit"],
        exit_status=end["exit_status"],
        submission=end["submission"],
        error=error,
        model_calls=chat.requests_sent,
        steps=chat.turns,
        usage=chat.usage,
        finish_reason=chat.finish_reason,
        seconds=time.monotonic() - started,
        context=chat.context,
        tokens=known_tokens(chat.tokens[:answers]),
    )


def make_failed_run(error: Failure) -> AgentRun:
    """Return the empty result of an agent that never started."""
    return AgentRun([], FAILED, "", error, model_calls=0, steps=0, usage=Usage(), finish_reason=None, seconds=0.0)


def _limits(settings: AgentSettings) -> dict[str, Any]:
    """Return the agent's templates and limits by mini-swe-agent's names."""
    return {
        "system_template": settings.system_template,
        "instance_template": settings.instance_template,
        "step_limit": settings.step_limit,
        "cost_limit": 0.0,
        "wall_time_limit_seconds": settings.wall_time_limit_s,
        "max_consecutive_format_errors": settings.max_consecutive_format_errors,
    }


def _for_journal(message: Message) -> Message:
    """Reduce a message to the fields that the journal records."""
    kept = {key: message[key] for key in _KEPT if key in message and (key, message[key]) != ("finish_reason", None)}
    extra = {key: value for key in _KEPT_EXTRA if (value := message.get("extra", {}).get(key)) not in (None, "")}
    return kept | ({"extra": extra} if extra else {})
