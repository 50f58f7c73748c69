"""The estimate of memory against what torch saves for the backward pass, and against known models."""

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

from rollmill.jobs.training.lora_settings import lora_config
from rollmill.jobs.training.memory_estimate import GIB, TrainingSettings, choose_savings, estimate_memory
from rollmill.jobs.training.memory_plan import measure_size
from rollmill.jobs.training.parameters import TrainLora

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT uses a deprecated name of transformers

TOKENS = 128
LLAMA_8B = LlamaConfig(
    vocab_size=128_256, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, tie_word_embeddings=False,
)  # fmt: skip
QWEN3_8B = Qwen3Config(
    vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36, num_attention_heads=32,
    num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
)  # fmt: skip


def small(layers, vocabulary=64):
    return LlamaConfig(
        vocab_size=vocabulary, hidden_size=96, intermediate_size=256, num_hidden_layers=layers, num_attention_heads=6,
        num_key_value_heads=2, head_dim=16, attn_implementation="sdpa",
    )  # fmt: skip


def parameters(**more):
    return TrainLora(**{"model_path": "m", "train_data": "t", "output_dir": "o", "lora_r": 8, **more})


def settings(**more):
    return TrainingSettings(
        **{"rows": 1, "tokens": TOKENS, "rank": 8, "has_dropout": True, "use_lora": True, "has_bf16": True, **more}
    )


def size_of(config, **more):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return measure_size(model, parameters(**more))


def saved_bytes(config, *, use_lora=True, dropout=0.05, checkpointing=False):
    """Return the bytes that a forward pass saves for the backward pass, without weights and their casts."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if use_lora else torch.float32
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    if use_lora:
        model = get_peft_model(model, lora_config(parameters(lora_dropout=dropout)))
    model.train()
    model.config.use_cache = False
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes(), tensor  # kept, so that no other tensor gets its address
        return tensor

    ids = torch.randint(0, config.vocab_size, (1, TOKENS))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids, labels=ids)
    casts = sum(2 * weight.numel() for weight in model.parameters() if weight.requires_grad)
    return sum(size for size, _ in saved.values()) - (0 if checkpointing else casts)


@pytest.mark.parametrize(
    "more", [{}, {"dropout": 0.0}, {"use_lora": False}], ids=["LoRA", "LoRA without dropout", "all weights"]
)
def test_activations_are_those_that_torch_saves(more):
    measured = saved_bytes(small(4), **more) - saved_bytes(small(2), **more)
    use_lora, dropout = more.get("use_lora", True), more.get("dropout", 0.05)
    chosen = settings(use_lora=use_lora, has_dropout=dropout > 0)
    estimates = [estimate_memory(size_of(small(layers), use_lora=use_lora), chosen).activations for layers in (4, 2)]
    assert estimates[0] - estimates[1] == pytest.approx(measured, rel=0.1)


def test_checkpointing_keeps_the_inputs_of_layers():
    measured = saved_bytes(small(4), checkpointing=True) - saved_bytes(small(2), checkpointing=True)
    estimates = [estimate_memory(size_of(small(layers)), settings(checkpointing=True)).activations for layers in (4, 2)]
    assert estimates[0] - estimates[1] == pytest.approx(measured, rel=0.02)


def test_logits_take_at_least_what_the_loss_saves():
    measured = saved_bytes(small(1, 1064)) - saved_bytes(small(1, 64))
    assert measured == pytest.approx(4 * 1000 * TOKENS, rel=0.02)  # the log-softmax; gradients and copies come later
    assert estimate_memory(size_of(small(1, 1064)), settings()).logits == 3 * 4 * 1064 * TOKENS


@pytest.mark.parametrize(
    ("config", "count", "adapter"), [(LLAMA_8B, 8_030_261_248, 41_943_040), (QWEN3_8B, 8_190_735_360, 43_646_976)]
)
def test_known_models_have_their_number_of_weights(config, count, adapter):
    size = size_of(config, lora_r=16)
    assert (size.parameters, size.adapter) == (count, adapter)
    estimate = estimate_memory(size, settings(rank=16))
    assert estimate.weights == 2 * count
    assert estimate.trained == 18 * adapter  # float32 weight, gradient and two moments; a bfloat16 copy
    # QLoRA's 8B models take between 5 and 6 GB: embeddings and the output layer stay in 16 bits.
    assert 5 < estimate_memory(size, settings(four_bit=True)).weights / 1e9 < 6.5
    assert estimate_memory(size, settings(use_lora=False)).trained == 18 * count


def test_savings_are_chosen_where_memory_is_short():
    size = size_of(LLAMA_8B, lora_r=16)
    batch = settings(rows=2, tokens=2048, rank=16)

    def choose(gib, **more):
        choice = choose_savings(size, batch, gib * GIB, **{"can_quantize": True, **more})
        return choice.settings.checkpointing, choice.settings.four_bit, choice.fits

    assert choose(80) == (False, False, True)
    assert choose(40) == (True, False, True)
    assert choose(24) == (True, True, True)
    assert choose(8) == (True, True, False)
    assert choose(24, can_quantize=False) == (True, False, False)
    assert choose(80, checkpointing=True, four_bit=True) == (True, True, True)
    assert choose(40, checkpointing=False) == (False, True, False)
    assert choose(24, four_bit=False) == (True, False, False)


def test_reason_has_the_figure_without_savings():
    size = size_of(LLAMA_8B, lora_r=16)
    batch = settings(rows=2, tokens=2048, rank=16)
    plain = estimate_memory(size, batch).total / GIB
    choice = choose_savings(size, batch, 40 * GIB)
    assert choice.reason == f"with gradient checkpointing, since {plain:.1f} GiB would be needed otherwise"
    assert choose_savings(size, batch, 800 * GIB).reason == "without gradient checkpointing and 4-bit weights"
    assert choose_savings(size, batch, 800 * GIB, checkpointing=True).reason == "with gradient checkpointing"
