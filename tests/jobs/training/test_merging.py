"""Merged weights against PEFT's own merge in float32, and the memory that merging takes."""

import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MixtralConfig

from rollmill.errors import InputError
from rollmill.jobs.training.merging import write_merged_model
from rollmill.jobs.training.streamed_merge import StreamedMerge

ROOT = Path(__file__).parents[3]
SIZES = {
    "vocab_size": 200,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
GPT2 = {"vocab_size": 200, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 1}
IDS = torch.arange(12)[None]

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's, on tied weights and on saving embeddings


def make_model(folder, config, shards="5GB"):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size=shards)
    return str(folder)


def make_adapter(folder, base, **settings):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    adapted = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **settings))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) * 0.1
    adapted.save_pretrained(folder)
    return folder


def adapted_in_float32(base, adapter):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).eval()


def merged_into(folder, base, adapter):
    folder.mkdir()
    write_merged_model(base, adapter, folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype="auto", output_loading_info=True)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def stored(folder):
    return {
        name: tensor for file in sorted(Path(folder).glob("*.safetensors")) for name, tensor in load_file(file).items()
    }


KINDS = {
    "all linear layers": {"target_modules": "all-linear"},
    "patterns, rsLoRA": {
        "target_modules": "all-linear",
        "use_rslora": True,
        "rank_pattern": {"q_proj": 8},
        "alpha_pattern": {"v_proj": 32},
    },
    "DoRA": {"target_modules": ["q_proj", "up_proj"], "use_dora": True},
    "whole output layer": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "whole embeddings and norm": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "norm"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "embeddings and output layer": {"target_modules": ["embed_tokens", "lm_head"]},
    "biases": {"target_modules": ["q_proj"], "bias": "all"},
    "bias of LoRA": {"target_modules": ["q_proj"], "lora_bias": True},
}


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
def test_merged_model_gives_the_adapters_logits(tmp_path, kind, tied):
    config = LlamaConfig(**SIZES, attention_bias=True, tie_word_embeddings=tied)
    base = make_model(tmp_path / "base", config, shards="20KB" if tied else "5GB")
    adapter = make_adapter(tmp_path / "adapter", base, **KINDS[kind])
    assert StreamedMerge.of(base, adapter) is not None
    merged, loading = merged_into(tmp_path / "merged", base, adapter)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    expected = logits(adapted_in_float32(base, adapter))
    effect = (expected - logits(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))).abs().max()
    assert (logits(merged.float()) - expected).abs().max() < min(0.02 * effect, 0.01)


@pytest.mark.parametrize("kind", ["all linear layers", "patterns, rsLoRA", "DoRA", "bias of LoRA"])
def test_weights_equal_pefts_bit_for_bit_and_the_others_the_bases(tmp_path, kind):
    base = make_model(tmp_path / "base", LlamaConfig(**SIZES, attention_bias=True), shards="20KB")
    adapter = make_adapter(tmp_path / "adapter", base, **KINDS[kind])
    merged_into(tmp_path / "merged", base, adapter)
    peft = adapted_in_float32(base, adapter).merge_and_unload().to(torch.bfloat16).state_dict()
    before, after = stored(base), stored(tmp_path / "merged")
    assert before.keys() == after.keys()
    assert [name for name in after if not torch.equal(after[name], peft[name])] == []
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"}.isdisjoint(changed)
    assert "model.layers.0.self_attn.q_proj.weight" in changed
    index = "model.safetensors.index.json"
    assert (tmp_path / "merged" / index).exists()
    assert orjson.loads((tmp_path / "merged" / index).read_bytes())["weight_map"].keys() == after.keys()


def test_weights_keep_the_dtype_that_they_have_in_the_file(tmp_path):
    base = make_model(tmp_path / "base", LlamaConfig(**SIZES))
    file = Path(base) / "model.safetensors"
    tensors = {name: tensor.float() if "norm" in name else tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})
    adapter = make_adapter(tmp_path / "adapter", base, target_modules="all-linear", modules_to_save=["norm"])
    merged_into(tmp_path / "merged", base, adapter)
    after = stored(tmp_path / "merged")
    assert {name: tensor.dtype for name, tensor in after.items()} == {n: t.dtype for n, t in tensors.items()}


def test_names_of_the_files_may_be_others_than_the_models(tmp_path):
    """GPT-2 of the hub has no `transformer.` before its names, and weights of [inputs, outputs]."""
    base = make_model(tmp_path / "base", GPT2Config(**GPT2))
    file = Path(base) / "model.safetensors"
    save_file({name.removeprefix("transformer."): t for name, t in load_file(file).items()}, file, {"format": "pt"})
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["c_attn"], fan_in_fan_out=True)
    assert StreamedMerge.of(base, adapter) is not None
    merged, _ = merged_into(tmp_path / "merged", base, adapter)
    expected = logits(adapted_in_float32(base, adapter))
    torch.testing.assert_close(logits(merged.float()), expected, rtol=0, atol=2e-3)


def test_model_whose_experts_are_fused_is_loaded_to_be_merged(tmp_path):
    base = make_model(tmp_path / "base", MixtralConfig(**SIZES, num_local_experts=4))
    adapter = make_adapter(tmp_path / "adapter", base, target_modules="all-linear")
    assert StreamedMerge.of(base, adapter) is None
    merged, loading = merged_into(tmp_path / "merged", base, adapter)
    assert not loading["missing_keys"]
    # Not by logits: a router that is rounded in another way chooses other experts.
    peft = adapted_in_float32(base, adapter).merge_and_unload().to(torch.bfloat16).state_dict()
    assert [name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, peft[name])] == []


def test_older_format_is_loaded_to_be_merged(tmp_path):
    base = make_model(tmp_path / "base", LlamaConfig(**SIZES, tie_word_embeddings=True))
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["q_proj", "embed_tokens"])
    file = Path(base) / "model.safetensors"
    torch.save(load_file(file), file.with_name("pytorch_model.bin"))
    file.unlink()
    merged, _ = merged_into(tmp_path / "merged", base, adapter)
    torch.testing.assert_close(logits(merged.float()), logits(adapted_in_float32(base, adapter)), rtol=0, atol=1e-2)


def test_quantized_base_is_refused(tmp_path):
    base = make_model(tmp_path / "base", LlamaConfig(**SIZES))
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    path = Path(base) / "config.json"
    config = orjson.loads(path.read_bytes())
    path.write_bytes(orjson.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(InputError, match="is quantized, and an adapter is merged into floats of 16 bits"):
        write_merged_model(base, adapter, tmp_path)


def test_base_file_that_is_cut_off_is_refused(tmp_path):
    base = make_model(tmp_path / "base", LlamaConfig(**SIZES))
    adapter = make_adapter(tmp_path / "adapter", base, target_modules=["q_proj"])
    file = Path(base) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"is cut off in .*: download or save the model again"):
        write_merged_model(base, adapter, tmp_path)


@pytest.mark.slow  # a process that imports transformers, and 170 MB of weights
def test_peak_memory_of_merging_is_below_the_checkpoints_size(tmp_path):
    sizes = SIZES | {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 6, "vocab_size": 4000}
    base = make_model(tmp_path / "base", LlamaConfig(**sizes))
    adapter = make_adapter(tmp_path / "adapter", base, target_modules="all-linear")
    (tmp_path / "merged").mkdir()
    command = [sys.executable, "-m", "tests.jobs.training.peak_of_merging", base, adapter, tmp_path / "merged"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    before, peak = map(float, done.stdout.split())
    size = (Path(base) / "model.safetensors").stat().st_size / 1e6
    assert size > 150
    assert peak - before < size
    shutil.rmtree(tmp_path)
