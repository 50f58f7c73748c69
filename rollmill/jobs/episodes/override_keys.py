"""Maps dotted names of settings (`training.sft_num_episodes`) to parameters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from rollmill.config.parameter import alias_names
from rollmill.jobs.episodes.override_values import POLICY_KEYS, as_pairs, as_text, split_policy, suggest_name
from rollmill.jobs.episodes.parameters import SFT_KEYS, CollectEpisodes

PAIRS = ("env", "sft_config", "agent", "policy")
"""Parameters that are lists of `KEY=VALUE` items."""

# Names of PettingLLMs' configuration files, which users bring along.
_FIELDS = {
    "env.name": "env_name",
    "env.max_turns": "max_turns",
    "training.sft_num_episodes": "total_rollouts",
    "training.sft_data_dir": "output_dir",
    "training.sft_config.output_dir": "sft_model_dir",
    "training.only_success": "successful_only",
    "training.max_response_length": "max_tokens",
    "training.sample_temperature": "temperature",
}
_POLICIES = {"policy", "policies", "models", "base_models"}
_ENTRY = {"path": "model", "model_path": "model", "model": "model", "name": "name"} | {key: key for key in POLICY_KEYS}
_CAST = "agent_policy_configs.agent_configs."
_SFT = "training.sft_config."
# PettingLLMs' settings of reinforcement learning, which mean nothing here.
_IGNORED = re.compile(
    r"(defaults|specialization|lora_rank|lora_alpha|resource|multi_agent_interaction"
    r"|env\.(resolve|multi_modal|batched_init)"
    r"|models\.\w+\.ppo_trainer_config"
    r"|agent_policy_configs\.(num_agents|policy_list|agent_configs\.\w+\.(enable_thinking|train_\w+|val_\w+))"
    r"|training\.(device|total_training_steps|project_name|experiment_name|logger|model_checkpoints_dir|train_\w+"
    r"|ray_\w+|validate_\w+|val_freq|resample_freq|max_prompt_length|lora_rank|lora_alpha|sft_mode|collect_mode)"
    r")(\..*)?"
)
_MAPPING_VALUE = re.compile(
    r"(env|sft_config|training\.sft_config)\.\w+"
    r"|((sampling|(policy|policies|models|base_models)\.[^.]+)\.)?(chat_template_kwargs|extra_body)"
)
"""Settings whose value may be a mapping, so that its keys are not further parts of a dotted name."""


def _group_of(name: str) -> str:
    extra = CollectEpisodes.model_fields[name].json_schema_extra
    return str(extra["group"]).lower() if isinstance(extra, dict) else ""


_ALIASES = alias_names(CollectEpisodes)
FIELDS = {name: _group_of(_ALIASES.get(name, name)) for name in (*CollectEpisodes.model_fields, *_ALIASES)}
"""All names of the parameters, each with the group that a dotted name may begin with."""
ROOTS = frozenset({*FIELDS.values(), *_POLICIES, "env", "sft_config", "agent", "agents", "agent_policy_configs"})
"""First parts of dotted names."""
_KNOWN = [
    *_FIELDS,
    *(name for name in FIELDS if name not in PAIRS),
    *(f"{group}.{name}" for name, group in FIELDS.items() if name not in PAIRS),
    *(f"{_SFT}{key}" for key in SFT_KEYS),
]


def is_ignored(name: str) -> bool:
    """Return whether a setting of PettingLLMs' files has no meaning here, and is ignored."""
    return _IGNORED.fullmatch(name) is not None


class UnusableSettingError(Exception):
    """An unknown dotted name, or a value that it cannot have."""


class ParameterOverlay:
    """Parameters collected from settings by dotted names; later ones win."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}
        """Parameters, except for `PAIRS`."""
        self.pairs: dict[str, dict[str, str]] = {"env": {}, "sft_config": {}, "agent": {}}
        self.ignored: list[str] = []
        self._policies: dict[str, dict[str, Any]] = {}
        self._cast: dict[str, dict[str, Any]] = {}

    def set(self, name: str, value: Any) -> str | None:
        """Set one setting; return the parameter that it sets, None for an item of `PAIRS`.

        Raises `UnusableSettingError`.
        """
        parts = name.split(".")
        root, last = parts[0].lower().replace("-", "_"), parts[-1].replace("-", "_")
        field = _FIELDS.get(name)
        # A parameter's own name (`max_tokens`), alone or behind its group in the form (`sampling.max_tokens`). Behind
        # another group, or deeper, it is unknown: a typing error must not set a parameter.
        if field is None and last not in PAIRS and parts[:-1] in ([], [root]) and root in (last, FIELDS.get(last)):
            field = _ALIASES.get(last, last) if last in FIELDS else None
        if field is not None:
            self.fields[field] = value
        elif not self._set_pair(root, parts, name, value):
            close = difflib.get_close_matches(name, _KNOWN, n=1)
            raise UnusableSettingError(f"no such setting{f'; did you mean {close[0]}?' if close else ''}")
        return field

    def policies(self) -> dict[str, dict[str, Any]]:
        """Return the settings of each policy, by its name; the key `model` is its model."""
        specs: dict[str, dict[str, Any]] = {}
        # An entry's key in a file (`policy_0`) is only that: agents refer to its `name`, where it has one. Entries of
        # one name are one policy.
        for entry, spec in self._policies.items():
            name = str(spec.get("name", entry))
            specs[name] = specs.get(name, {}) | {key: value for key, value in spec.items() if key != "name"}
        return specs

    def agent_policies(self) -> dict[str, str]:
        """Return the policy of each agent."""
        # An entry with one half alone names no pair. `agent.NAME=POLICY` wins over entries.
        entries = [entry for entry in self._cast.values() if {"name", "policy_name"} <= entry.keys()]
        return {str(entry["name"]): str(entry["policy_name"]) for entry in entries} | self.pairs["agent"]

    def _set_pair(self, root: str, parts: list[str], name: str, value: Any) -> bool:
        """Set an item of `PAIRS`; return False where the name is none.

        Args:
            root: The first part of the name, normalized.
            parts: All parts of the name.
            name: The dotted name as given.
            value: The value.
        """
        # `training.sft_config.KEY` is `sft_config.KEY`: without its first part, it is the same from here on.
        if name.startswith(_SFT):
            root, parts = "sft_config", parts[1:]
        # PettingLLMs' files name an agent and its policy by two settings of one entry, in any order.
        if name.startswith(_CAST) and len(parts) == 4 and parts[3] in {"name", "policy_name"}:
            self._cast.setdefault(parts[2], {})[parts[3]] = value
        # Without a key: `policy=[NAME=MODEL, ...]`, or a mapping, as flags take them.
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
        """Set a list of `KEY=VALUE` items, as flags take them; return False where `root` takes none."""
        if root not in PAIRS:
            return False
        items = [] if value is None else as_pairs(value)
        if not isinstance(items, list):
            raise UnusableSettingError(f"{value!r} is no mapping: give KEY: VALUE")
        for item in items:
            key, _, text = str(item).partition("=")
            if root == "policy":
                options = split_policy(text)
                urls = [url for name, url in options if name == "base_url"]
                self._policies[key] = dict(options) | ({"base_url": urls} if urls else {})
            else:
                self.pairs[root][key] = text
        return True

    def _set_policy(self, parts: list[str], value: Any) -> bool:
        """Set the model (`policy.NAME`) or an option (`policy.NAME.KEY`) of a policy; return False for other names."""
        entry, *keys = parts
        if not keys:
            self._policies.setdefault(entry, {})["model"] = value
        elif len(keys) == 1 and keys[0] in _ENTRY:
            self._policies.setdefault(entry, {})[_ENTRY[keys[0]]] = value
        elif len(keys) == 1:
            raise UnusableSettingError(f"no such setting of a policy{suggest_name(keys[0], _ENTRY)}")
        else:
            return False
        return True


def flatten(settings: dict[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings by their dotted names: mappings are flattened, lists stay. `above` is the prefix of all names."""
    for key, value in settings.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and not _MAPPING_VALUE.fullmatch(name):
            yield from flatten(value, f"{name}.")
        else:
            yield name, value
