"""Dotted names of settings (`training.sft_num_episodes`), and the parameters that they stand for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from rollmill.jobs.episodes.override_values import POLICY_KEYS, as_pairs, as_text, close_to, split_policy
from rollmill.jobs.episodes.parameters import SFT_KEYS, CollectEpisodes

PAIRS = ("env", "sft_config", "agent", "policy")
"""Parameters whose items have names of their own."""

_FIELDS = {
    "env.name": "env_name",
    "env.max_turns": "max_turns",
    "training.sft_num_episodes": "num_episodes",
    "training.sft_data_dir": "output_dir",
    "training.sft_config.output_dir": "sft_model_dir",
    "training.only_success": "only_success",
    "training.max_response_length": "max_tokens",
    "training.sample_temperature": "temperature",
}
_POLICIES = {"policy", "policies", "models", "base_models"}
_ENTRY = {"path": "model", "model_path": "model", "model": "model", "name": "name"} | {key: key for key in POLICY_KEYS}
_CAST = "agent_policy_configs.agent_configs."
_SFT = "training.sft_config."
_PASSED_OVER = re.compile(
    r"(defaults|specialization|lora_rank|lora_alpha|resource|multi_agent_interaction"
    r"|env\.(resolve|multi_modal|batched_init)"
    r"|models\.\w+\.ppo_trainer_config"
    r"|agent_policy_configs\.(num_agents|policy_list|agent_configs\.\w+\.(enable_thinking|train_\w+|val_\w+))"
    r"|training\.(device|total_training_steps|project_name|experiment_name|logger|model_checkpoints_dir|train_\w+"
    r"|ray_\w+|validate_\w+|val_freq|resample_freq|max_prompt_length|lora_rank|lora_alpha|sft_mode|collect_mode)"
    r")(\..*)?"
)
_WHOLE = re.compile(r"(env|sft_config|training\.sft_config)\.\w+")
"""Settings whose value may be a mapping."""


def _group_of(name: str) -> str:
    extra = CollectEpisodes.model_fields[name].json_schema_extra
    return str(extra["group"]).lower() if isinstance(extra, dict) else ""


FIELDS = {name: _group_of(name) for name in CollectEpisodes.model_fields}
"""The parameters, and the groups that dotted names may put before them."""
ROOTS = frozenset({*FIELDS.values(), *_POLICIES, "env", "sft_config", "agent", "agents", "agent_policy_configs"})
"""What dotted names begin with."""
_KNOWN = [
    *_FIELDS,
    *(name for name in FIELDS if name not in PAIRS),
    *(f"{group}.{name}" for name, group in FIELDS.items() if name not in PAIRS),
    *(f"{_SFT}{key}" for key in SFT_KEYS),
]


def passes_over(name: str) -> bool:
    """Whether a setting decides nothing here, and is none of ours: what files for PettingLLMs say of training."""
    return _PASSED_OVER.fullmatch(name) is not None


class UnusableSettingError(Exception):
    """A dotted name that stands for nothing, or a value that it cannot have."""


class Asked:
    """The parameters that settings come to; what is set later wins."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        """Parameters, but for `PAIRS`."""
        self.pairs: dict[str, dict[str, str]] = {"env": {}, "sft_config": {}, "agent": {}}
        self.passed_over: list[str] = []
        self._policies: dict[str, dict[str, Any]] = {}
        self._cast: dict[str, dict[str, Any]] = {}

    def set(self, name: str, value: Any) -> str | None:
        """Takes one setting; the parameter that it stands for, if it is one by itself.

        Raises `UnusableSettingError`.
        """
        parts = name.split(".")
        root, last = parts[0].lower().replace("-", "_"), parts[-1].replace("-", "_")
        field = _FIELDS.get(name)
        if field is None and last not in PAIRS and parts[:-1] in ([], [root]) and root in (last, FIELDS.get(last)):
            field = last if last in FIELDS else None
        if field is not None:
            self.fields[field] = value
        elif not self._set_pair(root, parts, name, value):
            close = difflib.get_close_matches(name, _KNOWN, n=1)
            raise UnusableSettingError(f"no such setting{f'; did you mean {close[0]}?' if close else ''}")
        return field

    def policies(self) -> dict[str, dict[str, Any]]:
        """What is said of each policy, by its name; `model` is its model."""
        found: dict[str, dict[str, Any]] = {}
        for entry, said in self._policies.items():
            name = str(said.get("name", entry))
            found[name] = found.get(name, {}) | {key: value for key, value in said.items() if key != "name"}
        return found

    def cast(self) -> dict[str, str]:
        """The policy of each agent."""
        entries = [said for said in self._cast.values() if {"name", "policy_name"} <= said.keys()]
        return {str(said["name"]): str(said["policy_name"]) for said in entries} | self.pairs["agent"]

    def _set_pair(self, root: str, parts: list[str], name: str, value: Any) -> bool:
        if name.startswith(_SFT):
            root, parts = "sft_config", parts[1:]
        if name.startswith(_CAST) and len(parts) == 4 and parts[3] in {"name", "policy_name"}:
            self._cast.setdefault(parts[2], {})[parts[3]] = value
        elif len(parts) == 1:
            return self._set_list(root, value)
        elif root in _POLICIES:
            return self._set_policy(parts[1:], value)
        elif root in {"agent", "agents"}:
            self.pairs["agent"][".".join(parts[1:])] = str(value)
        elif root in {"env", "sft_config"}:
            key = ".".join(parts[1:])
            self.pairs[root]["model_path" if key == "model_name_or_path" else key] = as_text(value)
        else:
            return False
        return True

    def _set_list(self, root: str, value: Any) -> bool:
        """`KEY=VALUE` items as flags take them."""
        if root not in PAIRS:
            return False
        items = [] if value is None else as_pairs(value)
        if not isinstance(items, list):
            raise UnusableSettingError(f"{value!r} is no mapping: give KEY: VALUE")
        for item in items:
            key, _, text = str(item).partition("=")
            if root == "policy":
                said = split_policy(text)
                urls = [url for name, url in said if name == "base_url"]
                self._policies[key] = dict(said) | ({"base_url": urls} if urls else {})
            else:
                self.pairs[root][key] = text
        return True

    def _set_policy(self, parts: list[str], value: Any) -> bool:
        entry, *keys = parts
        if not keys:
            self._policies.setdefault(entry, {})["model"] = value
        elif len(keys) == 1 and keys[0] in _ENTRY:
            self._policies.setdefault(entry, {})[_ENTRY[keys[0]]] = value
        elif len(keys) == 1:
            raise UnusableSettingError(f"no such setting of a policy{close_to(keys[0], _ENTRY)}")
        else:
            return False
        return True


def flat(settings: dict[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names: mappings opened, lists as they are."""
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and not _WHOLE.fullmatch(name):
            yield from flat(value, f"{name}.")
        else:
            yield name, value
