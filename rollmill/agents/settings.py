"""How an agent plays: what a configuration file comes down to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["text", "tools"]

TEXT_REGEX = r"```mswea_bash_command\s*\n(.*?)\n```"
"""Where an action stands in a text, as in mini-swe-agent 2."""
V1_REGEX = r"```bash\s*\n(.*?)\n```"
"""The same, as in mini-swe-agent 1."""
OBSERVATION = (
    "{% if output.exception_info %}<exception>{{output.exception_info}}</exception>\n{% endif %}"
    "<returncode>{{output.returncode}}</returncode>\n<output>\n{{output.output}}</output>"
)
TEXT_ERROR = "Please always provide EXACTLY ONE action in triple backticks, found {{actions|length}} actions."
TOOL_ERROR = "{{ error }}"
STEPS_FOR_COSTS = 250
"""Steps of an agent that only its costs were to limit: endpoints here have no prices. As mini-swe-agent's SWE-bench
configuration has it."""

TEMPLATES = {
    "system_template": "agent.system_template",
    "instance_template": "agent.instance_template",
    "observation_template": "model.observation_template",
    "format_error_template": "model.format_error_template",
}
"""The settings that are templates, and where a file has them."""


class AgentSettings(BaseModel):
    """An agent's templates, limits and requests. All of it determines what comes out: part of a run's identity."""

    model_config = ConfigDict(frozen=True)

    mode: Mode
    """`text`: a command stands in the answer's text. `tools`: it is the argument of a call of the tool `bash`."""
    system_template: str
    instance_template: str
    observation_template: str
    format_error_template: str
    action_regex: str
    """Finds the commands in a text (`re.DOTALL`); not used in tool mode."""
    step_limit: int = Field(default=0, ge=0)
    """Answers of the model; 0 for no limit."""
    wall_time_limit_s: int = Field(default=0, ge=0)
    """From the first request on; 0 for no limit. No command runs on past it by more than a second."""
    max_consecutive_format_errors: int = Field(default=3, ge=0)
    """0 for no limit."""
    cwd: str = ""
    """Where commands run; empty for where the sandbox runs them."""
    env: dict[str, str] = Field(default_factory=dict)
    """Of every command."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Of a command."""
    start_config: dict[str, Any] = Field(default_factory=dict)
    """What the file says of how a sandbox service is to start containers (`run_args`, `pull_timeout`, ...)."""
    model_name: str | None = None
    """The model that the file names."""
    request: dict[str, Any] = Field(default_factory=dict)
    """Fields of every chat request, such as `temperature`."""
    drop_reasoning: bool = Field(default=False, exclude_if=lambda value: not value)
    """Whether the model's earlier thoughts are left out of its requests."""
    origin: str = Field(default="", exclude=True)
    """The file that says so, for messages."""

    def template_origin(self, template: str) -> str:
        """Return where a template stands: the beginning of a message."""
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
        """Return settings with what is given here instead of what the file says.

        Args:
            request: Fields of every chat request.
            step_limit: Answers of the model.
            wall_time_limit_s: Seconds from the first request on.
            timeout_s: Seconds of a command.
            drop_reasoning: Whether the model's earlier thoughts are left out of its requests.
        """
        overrides = dict(request or {})
        replaced = {"max_completion_tokens"} if "max_tokens" in overrides else set()
        request = {name: value for name, value in self.request.items() if name not in replaced} | overrides
        limits = {"step_limit": step_limit, "wall_time_limit_s": wall_time_limit_s, "timeout_s": timeout_s}
        update: dict[str, Any] = {name: value for name, value in limits.items() if value is not None}
        update["drop_reasoning"] = drop_reasoning or self.drop_reasoning
        computed = {"request": request, "origin": self.origin}
        return type(self).model_validate(self.model_dump() | update | computed)
