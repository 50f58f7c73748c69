"""The settings of an agent, as read from a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["text", "tools"]

TEXT_REGEX = r"```mswea_bash_command\s*\n(.*?)\n```"
"""Matches the action in an answer's text, as in mini-swe-agent 2."""
V1_REGEX = r"```bash\s*\n(.*?)\n```"
"""The same, as in mini-swe-agent 1."""
OBSERVATION = (
    "{% if output.exception_info %}<exception>{{output.exception_info}}</exception>\n{% endif %}"
    "<returncode>{{output.returncode}}</returncode>\n<output>\n{{output.output}}</output>"
)
TEXT_ERROR = "Please always provide EXACTLY ONE action in triple backticks, found {{actions|length}} actions."
TOOL_ERROR = "{{ error }}"
STEPS_FOR_COSTS = 250
"""Step limit of an agent that only a cost limit bounds, since endpoints here have no prices. The same as in
mini-swe-agent's SWE-bench configuration."""

TEMPLATES = {
    "system_template": "agent.system_template",
    "instance_template": "agent.instance_template",
    "observation_template": "model.observation_template",
    "format_error_template": "model.format_error_template",
}
"""Settings that are templates, with their keys in a configuration file."""


class AgentSettings(BaseModel):
    """An agent's templates, limits and request fields. All of them affect results: part of a run's identity."""

    model_config = ConfigDict(frozen=True)

    mode: Mode
    """`text`: commands are code blocks in the answer's text. `tools`: arguments of calls of the tool `bash`."""
    system_template: str
    instance_template: str
    observation_template: str
    format_error_template: str
    action_regex: str
    """Matches the commands in a text (`re.DOTALL`); not used in tool mode."""
    step_limit: int = Field(default=0, ge=0)
    """Maximum number of model answers; 0 for no limit."""
    wall_time_limit_s: int = Field(default=0, ge=0)
    """Seconds from the first request on; 0 for no limit. No command runs past it by more than a second."""
    max_consecutive_format_errors: int = Field(default=3, ge=0)
    """Format errors in a row that end the agent; 0 for no limit."""
    cwd: str = ""
    """Folder that commands run in; empty for the sandbox's default."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of every command."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Time limit of a command, in seconds."""
    start_config: dict[str, Any] = Field(default_factory=dict)
    """Options for a sandbox service to start containers with (`run_args`, `pull_timeout`, ...)."""
    model_name: str | None = None
    """The model that the file names."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Fields of every chat request, such as `temperature`."""
    drop_reasoning: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the model's earlier reasoning is left out of its requests."""
    origin: str = Field(default="", exclude=True)
    """The configuration file, for messages."""

    def template_origin(self, template: str) -> str:
        """Return the file and key of a template: the beginning of a message."""
        fields = (name for name in TEMPLATES if getattr(self, name) == template)
        return f"{self.origin or 'the configuration'}: {TEMPLATES.get(next(fields, ''), 'agent')}"

    def with_overrides(
        self,
        request: Mapping[str, Any] | None = None,
        *,
        step_limit: int | None = None,
        wall_time_limit_s: int | None = None,
        timeout_s: float | None = None,
        drop_reasoning: bool = False,
    ) -> Self:
        """Return a copy in which these values replace the file's.

        Args:
            request: Fields of every chat request.
            step_limit: Maximum number of model answers; None for the file's.
            wall_time_limit_s: Seconds from the first request on; None for the file's.
            timeout_s: Time limit of a command, in seconds; None for the file's.
            drop_reasoning: Whether the model's earlier reasoning is left out of its requests.
        """
        overrides = dict(request or {})
        # The two names mean the same, and servers refuse a request with both.
        replaced = {"max_completion_tokens"} if "max_tokens" in overrides else set()
        request = {name: value for name, value in self.request.items() if name not in replaced} | overrides
        limits = {"step_limit": step_limit, "wall_time_limit_s": wall_time_limit_s, "timeout_s": timeout_s}
        update: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
        update["drop_reasoning"] = drop_reasoning or self.drop_reasoning
        computed = {"request": request, "origin": self.origin}
        return type(self).model_validate(self.model_dump() | update | computed)
