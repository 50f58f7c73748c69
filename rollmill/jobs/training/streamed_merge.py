"""Merges an adapter into the safetensors files of its base, weight by weight.

The model is built without memory for its weights. PEFT loads the adapter into it, and merges each layer by itself once
the layer's weight is read from the base's file; so all of PEFT's kinds (rank patterns, rsLoRA, DoRA, embeddings,
complete layers) are merged by PEFT's own code. Imports torch, transformers and PEFT.
"""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import orjson
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.utils.hub import cached_file

from rollmill.errors import InputError
from rollmill.inference.adapter import ADAPTER_WEIGHTS
from rollmill.jobs.training.safetensors_file import StoredTensor, TensorFile, float_dtype, write_header, write_tensor
from rollmill.jobs.training.stop_tokens import GENERATION_CONFIG
from rollmill.jobs.training.work import CONFIG

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_PREFIX = "base_model.model."
_DEFAULT = "default"


class _Change(NamedTuple):
    """One weight of the merged model that differs from the base's."""

    layer: Any
    """The LoRA layer that is merged; None where the adapter has the whole weight."""
    part: str
    """`weight` or `bias` of the layer."""
    tensor: Tensor | None
    """The whole weight that the adapter has instead of the base's; None where it has none."""


@dataclass
class StreamedMerge:
    """The weights that an adapter changes, and the files of the base."""

    base: str
    files: list[TensorFile]
    names: dict[str, str]
    """The model's name of each weight by its name in the files, where no other is combined with it."""
    changes: dict[str, _Change]
    sources: dict[str, tuple[TensorFile, str]]
    """File, and name in it, of each weight: tied weights are stored once, under one of their names."""
    additions: dict[str, StoredTensor] = field(default_factory=dict)
    """Weights that the base's files do not have: tied ones, of which the adapter changes one only."""
    is_untied: bool = False

    @classmethod
    def of(cls, base: str, adapter: Path) -> Self | None:
        """Return the merge of an adapter's folder; None where the base's files lack a weight by the model's name."""
        files = _weight_files(base)
        if not files:
            return None
        replacements = _whole_weights(adapter)
        model, tied = _build_empty(base, replacements.keys())
        names = _model_names(model, files)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on tied weights, which are handled here, and on deprecated names
            adapted = PeftModel.from_pretrained(model, str(adapter))
        changes = _changes(adapted, replacements)
        if changes is None:
            return None
        sources = {names[name]: (file, name) for file in files for name in file.tensors if name in names}
        stored = sources.keys()
        for group in tied:
            if source := next((sources[name] for name in group if name in stored), None):
                sources = dict.fromkeys(group, source) | sources
        shapes = {name: list(parameter.shape) for name, parameter in _plain_parameters(adapted)}
        for name in changes:
            if name not in sources or sources[name][0].tensors[sources[name][1]].shape != shapes.get(name):
                return None
        merge = cls(base, files, names, changes, sources)
        for group in tied:
            merge._untie(group, group - stored)
        return merge

    def _untie(self, group: set[str], missing: set[str]) -> None:
        """Store each of some tied weights by itself, where the adapter changes one of them.

        `missing` are those that the base's files do not have.
        """
        if group & self.changes.keys():
            self.is_untied = True
            for name in sorted(missing):
                file, source = self.sources[name]
                self.additions[name] = file.tensors[source]

    def write(self, target: Path) -> None:
        """Write configuration, weights and index of the merged model to a folder."""
        config = orjson.loads(Path(_file(self.base, CONFIG) or "").read_bytes())
        if self.is_untied:
            _set_untied(config)
        (target / CONFIG).write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2) + b"\n")
        if generation_config := _file(self.base, GENERATION_CONFIG):
            shutil.copyfile(generation_config, target / GENERATION_CONFIG)
        for number, file in enumerate(self.files):
            additions = self.additions if number == len(self.files) - 1 else {}
            with (target / file.path.name).open("wb") as output:
                self._write_file(file, additions, output)
        if len(self.files) > 1:
            index = orjson.loads(Path(_file(self.base, INDEX) or "").read_bytes())
            index["weight_map"] |= dict.fromkeys(self.additions, self.files[-1].path.name)
            size = sum(added.length for added in self.additions.values())
            index.setdefault("metadata", {})
            index["metadata"]["total_size"] = index["metadata"].get("total_size", 0) + size
            (target / INDEX).write_bytes(orjson.dumps(index, option=orjson.OPT_INDENT_2) + b"\n")

    def _write_file(self, file: TensorFile, additions: dict[str, StoredTensor], output: IO[bytes]) -> None:
        write_header(output, {**file.tensors, **additions}, file.metadata or {"format": "pt"})
        for stored in file.tensors:
            name = self.names.get(stored)
            if name in self.changes:
                write_tensor(output, self._merged(name))
            else:
                file.copy(stored, output)
        for name in additions:
            if name in self.changes:
                write_tensor(output, self._merged(name))
            else:
                source, stored = self.sources[name]
                source.copy(stored, output)

    @torch.inference_mode()
    def _merged(self, name: str) -> Tensor:
        """Return a weight of the merged model, in the dtype of the base's file."""
        change, (file, source) = self.changes[name], self.sources[name]
        dtype = float_dtype(file.tensors[source].dtype, name)
        tensor = file.read(source) if change.tensor is None else change.tensor
        if change.layer is not None:
            try:
                tensor = _merge_layer(change.layer, change.part, tensor.float())
            except (RuntimeError, ValueError, NotImplementedError) as error:
                raise InputError(
                    f"the adapter cannot be merged into {name} of {self.base} ({error}): serve it beside its base"
                ) from error
        return tensor.to(dtype)


def _merge_layer(layer: Any, part: str, tensor: Tensor) -> Tensor:
    """Return a layer's merged weight or bias, in float32.

    Works on a copy of the layer without its weights: what is merged is freed once it is written.
    """
    if part == "bias":
        bias: Tensor = tensor + layer.lora_B[_DEFAULT].bias * layer.scaling[_DEFAULT]
        return bias
    alone = copy.copy(layer)
    alone._modules = dict(layer._modules)
    plain = alone._modules["base_layer"] = copy.copy(layer.get_base_layer())
    plain._parameters = dict(plain._parameters)
    plain._parameters["weight"] = nn.Parameter(tensor, requires_grad=False)
    alone.merged_adapters = []
    alone.merge()
    merged: Tensor = plain._parameters["weight"].data
    return merged


def _changes(adapted: Any, replacements: dict[str, Tensor]) -> dict[str, _Change] | None:
    """Return the weights that the adapter changes, by the names of the plain model; None for kinds unknown here.

    `replacements` are the weights that the adapter has instead of the base's.
    """
    changes = {name: _Change(None, name.rpartition(".")[2], tensor) for name, tensor in replacements.items()}
    for path, module in adapted.named_modules():
        name = path.removeprefix(_PREFIX)
        if isinstance(module, ModulesToSaveWrapper):
            if any(
                f"{name}.{part}" not in replacements for part, _ in module.modules_to_save[_DEFAULT].named_parameters()
            ):
                return None
        elif isinstance(module, LoraLayer):
            plain = module.get_base_layer()
            # PEFT's layers for parameters of fused experts, and for attention in one module, merge in other ways.
            if hasattr(module, "parameter_name") or set(plain._parameters) - {"weight", "bias"}:
                return None
            changes[f"{name}.weight"] = _Change(module, "weight", replacements.get(f"{name}.weight"))
            if module.lora_bias.get(_DEFAULT):
                changes[f"{name}.bias"] = _Change(module, "bias", replacements.get(f"{name}.bias"))
        elif isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            return None
    return changes


def _whole_weights(adapter: Path) -> dict[str, Tensor]:
    """Return the weights that an adapter has whole (`modules_to_save`, biases, embeddings), by their plain names."""
    file = TensorFile(adapter / ADAPTER_WEIGHTS)
    names = (name for name in file.tensors if ".lora_" not in name)
    return {name.removeprefix(_PREFIX).replace(".base_layer.", "."): file.read(name) for name in names}


def _plain_parameters(adapted: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters of the plain model inside of PEFT's, by their plain names."""
    for name, parameter in adapted.named_parameters(remove_duplicate=False):
        if ".lora_" not in name and ".modules_to_save." not in name:
            yield (
                name.removeprefix(_PREFIX).replace(".base_layer.", ".").replace(".original_module.", "."),
                parameter,
            )


def _build_empty(base: str, replacements: Collection[str]) -> tuple[Any, list[set[str]]]:
    """Return a model whose weights take no memory, and the sets of names of weights that are one tensor.

    Weights are views of a single element, on the CPU: PEFT then creates the adapter's weights there. Vectors, and the
    weights named in `replacements`, into which PEFT copies the adapter's, are complete. Raises `InputError` for a
    quantized base.
    """
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot load the model {base}: {error}") from error
    if getattr(config, "quantization_config", None):
        raise InputError(
            f"{base} is quantized, and an adapter is merged into floats of 16 bits or more: serve the adapter beside "
            "its base, or merge it into weights that are not quantized"
        )
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            config, dtype=torch.float32, trust_remote_code=False
        )
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    views: dict[int, nn.Parameter] = {}
    for module in list(model.modules()):
        for part, parameter in module._parameters.items():
            if parameter is not None:
                key = id(parameter)  # tied weights stay one
                if key not in views:
                    is_complete = parameter.dim() < 2 or not names[key].isdisjoint(replacements)
                    view = torch.zeros(parameter.shape if is_complete else ()).expand(parameter.shape)
                    views[key] = nn.Parameter(view, requires_grad=False)
                module._parameters[part] = views[key]
    return model, [group for group in names.values() if len(group) > 1]


def _model_names(model: Any, files: list[TensorFile]) -> dict[str, str]:
    """Return the model's name of each weight in the files that transformers loads as it is, perhaps under another name.

    Those that it splits, joins or permutes are left out.
    """
    mapping = get_model_conversion_mapping(model)
    renamings = [transform for transform in mapping if isinstance(transform, WeightRenaming)]
    converters = [transform for transform in mapping if isinstance(transform, WeightConverter)]
    state = dict(model.named_parameters(remove_duplicate=False))
    names = {}
    for file in files:
        for stored in file.tensors:
            name, converted = rename_source_key(stored, renamings, converters, model.base_model_prefix, state)
            if converted is None:
                names[stored] = name
    return names


def _weight_files(base: str) -> list[TensorFile]:
    """Return the base's safetensors files; empty where it has none under the usual names."""
    index = _file(base, INDEX)
    if (single := _file(base, SINGLE)) is not None:
        return [TensorFile(Path(single))]
    if index is None:
        return []
    names = dict.fromkeys(orjson.loads(Path(index).read_bytes())["weight_map"].values())
    paths = [_file(base, name) for name in names]
    return [] if None in paths else [TensorFile(Path(path)) for path in paths if path]


def _file(base: str, name: str) -> str | None:
    """Return the path of a file of the base, downloaded from the hub if need be; None where it has none."""
    try:
        path: str | None = cached_file(base, name)
    except OSError:
        return None
    return path


def _set_untied(config: dict[str, Any]) -> None:
    """Note that the output layer has weights of its own."""
    config["tie_word_embeddings"] = False
    if isinstance(config.get("text_config"), dict) and "tie_word_embeddings" in config["text_config"]:
        config["text_config"]["tie_word_embeddings"] = False
