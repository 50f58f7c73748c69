"""LoRA adapters on disk, written by hand or by PEFT."""

import warnings

import orjson


def write_safetensors(path, shapes):
    """A header without weights; the folder it is in."""
    header = orjson.dumps(
        {name: {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    return path.parent


def write_adapter(folder, shapes=None, **config):
    """An adapter of rank 4 for `org/base`; `config` changes its configuration."""
    write_safetensors(folder / "adapter_model.safetensors", shapes or {})
    fields = {"base_model_name_or_path": "org/base", "peft_type": "LORA", "r": 4, **config}
    (folder / "adapter_config.json").write_bytes(orjson.dumps(fields))
    return folder


def make_adapter(folder, base, *, rank=8, scale=0.02, **more):
    """A random adapter that changes what the model in `base` says; `more` goes into its configuration."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks Transformers by an old name
        adapted = get_peft_model(
            model, LoraConfig(r=rank, lora_alpha=rank, target_modules=["q_proj", "v_proj"], **more)
        )
    for name, weight in adapted.named_parameters():
        if "lora_B" in name or "modules_to_save" in name:
            torch.nn.init.normal_(weight, std=scale)
    adapted.save_pretrained(folder)
    return folder
