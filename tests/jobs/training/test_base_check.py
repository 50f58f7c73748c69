import json

import pytest

from rollmill.errors import InputError
from rollmill.jobs.training.base_check import check_adapter
from tests.inference.adapters import write_adapter, write_safetensors

NAME = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def adapter(tmp_path):
    return write_adapter(tmp_path / "adapter", {f"{NAME}.lora_A.weight": [4, 32], f"{NAME}.lora_B.weight": [16, 4]})


def base(tmp_path, shape, layer="model.layers.0.self_attn.q_proj"):
    return str(write_safetensors(tmp_path / "base" / "model.safetensors", {f"{layer}.weight": shape}))


def test_adapters_without_a_manifest_are_checked_by_name_and_shapes(tmp_path, adapter):
    assert check_adapter(adapter, "org/base").folder == adapter
    check_adapter(adapter, base(tmp_path, [16, 32]))
    with pytest.raises(InputError, match=r"was trained for org/base, not for org/other \(their names differ\)"):
        check_adapter(adapter, "org/other")


@pytest.mark.parametrize(
    ("shape", "layer", "why"),
    [
        ([16, 64], "model.layers.0.self_attn.q_proj", "has 64 inputs, the adapter 32"),
        ([8, 32], "model.layers.0.self_attn.q_proj", "has 8 outputs, the adapter 16"),
        ([16, 32], "transformer.h.0.attn", "it has no layer model.layers.0.self_attn.q_proj"),
    ],
)
def test_another_base_is_refused_with_both_names(tmp_path, adapter, shape, layer, why):
    other = base(tmp_path, shape, layer)
    with pytest.raises(InputError, match=f"trained for org/base, not for {other} .*{why}"):
        check_adapter(adapter, other)


def test_invalid_adapter_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a LoRA adapter"):
        check_adapter(tmp_path, "org/base")


@pytest.mark.parametrize("generation", [{}, {"model_path": 7}, {"model_path": "org/base", "seed": 10**30}])
def test_a_manifest_of_another_shape_is_refused_in_one_line(adapter, generation):
    manifest = {"identity_key": "k", "identity": {"generation": generation, "verification": {}}, "parameters": {}}
    manifest |= {"base": "org/base", "data": {}, "versions": {}, "git_commit": None, "host": "h", "started_at": "now"}
    (adapter / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is not the manifest of a training run that this version reads"):
        check_adapter(adapter, "org/base")
