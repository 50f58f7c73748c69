"""Translates the keys of a mini-swe-agent configuration, including those of version 1.

Sources: mini-swe-agent 2.4.6's classes, and its guide to migration from version 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rollmill.agents.settings import STEPS_FOR_COSTS

Section = dict[str, Any]
Warn = Callable[[str, str], None]
"""Called with a key (`agent.mode`) and what becomes of it."""

_MOVED = {
    "action_observation_template": "observation_template",
    "format_error_template": "format_error_template",
    "action_regex": "action_regex",
}
_V1_ONLY = ("action_observation_template", "timeout_template")
_USED = {
    "agent": {
        "system_template",
        "instance_template",
        "step_limit",
        "wall_time_limit_seconds",
        "max_consecutive_format_errors",
    },
    "environment": {"cwd", "env", "timeout"},
    "model": {
        "model_name",
        "model_class",
        "model_kwargs",
        "action_regex",
        "observation_template",
        "format_error_template",
    },
}
_NOT_USED = {
    "agent.mode": "not used: nobody is asked, every command runs in its sandbox",
    "agent.whitelist_actions": "not used: nobody is asked, every command runs in its sandbox",
    "agent.confirm_exit": "not used: nobody is asked, the agent ends when it submits",
    "agent.output_path": "not used: the run's journal has the trajectories",
    "environment.environment_class": "not used: sandboxes are chosen where the run is started",
    "environment.image": "not used: the problem names its image",
    "environment.interpreter": "not used: commands are bash's",
    "model.cost_tracking": "not used: endpoints here have no prices",
    "model.litellm_model_registry": "not used: endpoints here have no prices",
    "model.set_cache_control": "not used: it is for another provider's API",
}
_START = ("forward_env", "executable", "run_args", "container_timeout", "pull_timeout")
_SAMPLING = """
    temperature top_p top_k min_p max_tokens max_completion_tokens min_tokens stop presence_penalty frequency_penalty
    repetition_penalty logit_bias parallel_tool_calls tool_choice reasoning_effort chat_template_kwargs
"""
_SENT = frozenset(_SAMPLING.split())
_SET_PER_REQUEST = frozenset(("model", "messages", "seed", "tools", "stream", "n"))
_CONNECTION = frozenset(("api_base", "base_url", "api_key", "custom_llm_provider"))


def from_version_1(agent: Section, model: Section, warn: Warn) -> bool:
    """Move keys of version 1 to where version 2 has them, in place; return whether the file is of version 1."""
    is_v1 = any(key in agent for key in (*_MOVED, *_V1_ONLY))
    for key, name in _MOVED.items():
        if key in agent:
            value = agent.pop(key)
            if name in model:
                warn(f"agent.{key}", f"not used: model.{name} is there, too")
            else:
                warn(f"agent.{key}", f"of version 1: read as model.{name}")
                model[name] = value
                if key == "action_observation_template":
                    model[name] = _with_exception(value)
    if "timeout_template" in agent:
        warn("agent.timeout_template", "of version 1: read as part of model.observation_template")
        observed = model.get("observation_template")
        model["observation_template"] = _with_timeout(agent.pop("timeout_template"), observed)
    return is_v1


def _with_exception(template: Any) -> Any:
    """Prepend `output.exception_info` to an observation template: version 1 reported it in another template."""
    if not isinstance(template, str) or "exception_info" in template:
        return template
    return "{% if output.exception_info %}{{ output.exception_info }}\n{% endif %}" + template


def _with_timeout(timeout: Any, observation: Any) -> Any:
    """Merge the two templates into one; in version 1 the one for timeouts had `action`, and `output` as text."""
    if not isinstance(timeout, str) or not isinstance(observation, str | None):
        return observation if isinstance(timeout, str) else timeout
    rest = observation if observation is not None else "{{ output.output }}"
    return (
        "{% if output.timed_out is defined %}"
        "{% with action={'action': output.timed_out}, output=output.output %}" + timeout + "{% endwith %}"
        "{% else %}" + rest + "{% endif %}"
    )


def drop_costs(agent: Section, warn: Warn) -> None:
    """Replace a cost limit by a step limit where it was the only limit, in place.

    A file without `cost_limit` has mini-swe-agent's default of 3 dollars.
    """
    named = "cost_limit" in agent
    limited = agent.pop("cost_limit", 3.0)
    if limited and not agent.get("step_limit"):
        agent["step_limit"] = STEPS_FOR_COSTS
        warn("agent.cost_limit", f"not used: endpoints here have no prices; step_limit is {STEPS_FOR_COSTS} instead")
    elif named:
        warn("agent.cost_limit", "not used: endpoints here have no prices")


def drop_unused(name: str, section: Section, warn: Warn) -> None:
    """Remove unused keys with a warning, in place."""
    for key in [key for key in section if key not in _USED[name]]:
        del section[key]
        full_key = f"{name}.{key}"
        warn(full_key, _NOT_USED.get(full_key, "unknown, and not used"))


def start_config(environment: Section, warn: Warn) -> Section:
    """Take the options for starting containers out of the section."""
    options = {key: environment.pop(key) for key in _START if key in environment}
    for key in options:
        warn(f"environment.{key}", "for a sandbox service, and not used for sandboxes of this machine")
    return options


def request_fields(model_kwargs: Section, warn: Warn) -> Section:
    """Return the fields of `model_kwargs` that are sent with every request."""
    fields: Section = {}
    for key, value in model_kwargs.items():
        if key == "extra_body" and isinstance(value, dict):
            fields |= {name: setting for name, setting in value.items() if name not in _SET_PER_REQUEST}
            for name in sorted(_SET_PER_REQUEST & value.keys()):
                warn(f"model.model_kwargs.extra_body.{name}", "not used: every request has its own")
        elif key in _SENT:
            fields[key] = value
        elif key in _SET_PER_REQUEST:
            warn(f"model.model_kwargs.{key}", "not used: every request has its own")
        elif key in _CONNECTION:
            warn(f"model.model_kwargs.{key}", "not used: servers and keys are chosen where the run is started")
        elif key != "drop_params":  # litellm's own, and in all of mini-swe-agent's files
            warn(f"model.model_kwargs.{key}", "unknown, and not used")
    return fields
