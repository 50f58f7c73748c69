"""Training in this process, without a worker: tiny models, a few steps."""

import math

import orjson
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig

from rollmill.jobs.training import worker
from rollmill.jobs.training.checkpoints import checkpoint_path, last_checkpoint
from rollmill.jobs.training.hardware import used_device
from rollmill.jobs.training.metrics import METRICS, read_metrics
from rollmill.jobs.training.parameters import TrainLora
from rollmill.jobs.training.prepared import read_prepared
from rollmill.jobs.training.work import TrainingWork, read_outcome
from tests.gpus import FakeMachine
from tests.jobs.training.tiny_models import make_base, make_tokenizer, row, write_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
ROWS = [row(n, "ab" * (n % 5 + 1)) for n in range(10)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def train_here(tmp_path, base, monkeypatch):
    """Train in a directory of that name; return the work, and the error message."""
    monkeypatch.setattr(worker.warnings, "simplefilter", lambda *_: None)  # not for the tests that follow

    def train(rows=ROWS, *, name="run", model=base, validation=(), **more):
        directory = tmp_path / name
        options = {"lora_r": 4, "lora_dropout": 0.0, "learning_rate": 1e-2, "num_gpus": 0, "num_train_epochs": 1}
        paths = [write_rows(tmp_path / f"{name}.jsonl", rows)]
        held_out = [write_rows(tmp_path / f"{name}.v.jsonl", validation)] if validation else []
        parameters = TrainLora(model_path="m", train_data=paths, output_dir=str(directory), **{**options, **more})
        work = TrainingWork(
            stage="train", parameters=parameters, base=str(model), train=paths, validation=held_out, directory=directory
        )
        work.folder.mkdir(parents=True)
        work.write()
        code = worker.main(work.spec)
        outcome = read_outcome(work.outcome)
        assert (code == 1) == (outcome.error is not None)
        return work, outcome.error

    return train


def losses(work):
    return [item.loss for item in read_metrics(work.directory / METRICS) if item.loss is not None]


@pytest.mark.parametrize(
    ("more", "takes"),
    [
        ({}, 64),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}}, 256),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 128),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8,
                           "low_freq_factor": 1.0, "high_freq_factor": 4.0}}, 64),
    ],
)  # fmt: skip
def test_model_length_follows_the_rope_settings(tmp_path, more, takes):
    LlamaConfig(max_position_embeddings=64, **more).save_pretrained(tmp_path)
    assert worker.model_length(str(tmp_path)) == takes


def test_learned_position_embeddings_limit_the_row_length(train_here, tmp_path):
    """A model with learned position embeddings for 64 positions."""
    tokenizer = make_tokenizer()
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=None,
                        eos_token_id=tokenizer.eos_token_id)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "short")
    tokenizer.save_pretrained(tmp_path / "short")
    work, error = train_here([row(), row(1, "a" * 80)], model=tmp_path / "short", max_steps=1, use_lora=False)
    assert error is None
    prepared = read_prepared(work.folder)
    assert (prepared.train.rows, prepared.dropped, prepared.model_length) == (1, {"over_model_length": 1}, 64)


def test_one_row_trains(train_here):
    work, error = train_here([row()], num_train_epochs=3)
    assert error is None
    metrics = read_metrics(work.directory / METRICS)
    assert [(item.step, item.steps, item.epoch) for item in metrics] == [(1, 3, 1.0), (2, 3, 2.0), (3, 3, 3.0)]
    assert metrics[2].loss < metrics[0].loss
    assert metrics[2].tokens == 3 * read_prepared(work.folder).train.tokens
    assert all(item.tokens_per_s > 0 and item.peak_memory_mb > 10 and item.seconds > 0 for item in metrics)
    assert last_checkpoint(work.checkpoints).over
    assert (checkpoint_path(work.checkpoints, 3) / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_epoch_has_the_computed_number_of_steps(train_here, accumulation):
    work, _ = train_here(gradient_accumulation_steps=accumulation, num_train_epochs=2)
    metrics = read_metrics(work.directory / METRICS)
    assert metrics[-1].step == metrics[-1].steps == 2 * math.ceil(5 / accumulation)
    assert metrics[-1].epoch == 2
    work, _ = train_here(gradient_accumulation_steps=accumulation, num_train_epochs=2, max_steps=1, name="capped")
    assert len(read_metrics(work.directory / METRICS)) == 1


@pytest.mark.parametrize("kind", ["mamba", "bloom"])
def test_packing_is_refused_for_models_that_attend_across_rows(train_here, tmp_path, kind):
    tokenizer = make_tokenizer()
    size = {"n_layer": 1, "n_head": 2} if kind == "bloom" else {"num_hidden_layers": 1}
    config = AutoConfig.for_model(kind, vocab_size=len(tokenizer), hidden_size=16, **size)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / kind)
    tokenizer.save_pretrained(tmp_path / kind)
    _, error = train_here(model=tmp_path / kind, packing=True)
    assert error.startswith("--packing: the model does not separate rows by their positions")
    assert "leave it out" in error


def test_refusals_of_peft_are_one_line(train_here):
    _, error = train_here(target_modules=["no_such_layer"])
    assert "no_such_layer" in error
    assert error.endswith("give --target_modules that the model has, or all-linear")


def test_an_end_token_is_added_to_the_generation_config(train_here, tmp_path):
    base = make_base(tmp_path / "base")
    (base / "generation_config.json").write_text('{"eos_token_id": 2, "top_p": 0.9}')
    work, error = train_here([row()], model=base, max_steps=1)
    assert error is None
    added = orjson.loads((work.folder / "generation_config.json").read_bytes())
    assert added == {"eos_token_id": [2, make_tokenizer().eos_token_id], "top_p": 0.9}


def test_packed_rows_do_not_see_each_other(train_here):
    apart, _ = train_here(per_device_train_batch_size=10, gradient_accumulation_steps=1, max_steps=1)
    packed, _ = train_here(packing=True, max_length=4096, gradient_accumulation_steps=1, max_steps=1, name="packed")
    assert losses(packed) == pytest.approx(losses(apart), rel=1e-5)
    weights = [load_file(checkpoint_path(w.checkpoints, 1) / "adapter_model.safetensors") for w in (apart, packed)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-4)
    seen = [read_metrics(work.directory / METRICS)[0].tokens for work in (apart, packed)]
    assert seen[0] == seen[1] == read_prepared(apart.folder).train.tokens


def test_gradient_checkpointing_changes_memory_only(train_here):
    plain, _ = train_here(lora_dropout=0.3)
    recomputed, _ = train_here(lora_dropout=0.3, gradient_checkpointing=True, name="recomputed")
    assert losses(recomputed) == pytest.approx(losses(plain), rel=1e-6)


def test_the_loss_is_over_the_answers_tokens(train_here, base):
    """The first loss is the mean of -log p over the assistant's tokens, computed here by hand."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    work, _ = train_here(per_device_train_batch_size=10, gradient_accumulation_steps=1, max_steps=1)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    total, count = 0.0, 0
    for item in ROWS:
        question, answer = (message["content"] for message in item["messages"])
        prompt = tokenizer(f"<|user|>{question}<eos><|assistant|>")["input_ids"]
        ids = torch.tensor([prompt + tokenizer(f"{answer}<eos>")["input_ids"]])
        with torch.no_grad():
            messages = model(ids).logits[0].log_softmax(-1)
        for index in range(len(prompt), ids.shape[1]):
            total, count = total - messages[index - 1, ids[0, index]].item(), count + 1
    assert losses(work) == pytest.approx([total / count], rel=1e-5)
    assert count == read_prepared(work.folder).train.learnt_tokens


def test_training_stops_early_when_the_loss_does_not_fall(train_here):
    held_out = [row(n, "zzz") for n in range(20, 23)]
    work, error = train_here(
        validation=held_out, num_train_epochs=20, early_stopping_patience=2, gradient_accumulation_steps=1,
        learning_rate=3e-2, lora_r=8,
    )  # fmt: skip
    assert error is None
    last = last_checkpoint(work.checkpoints)
    evaluated = {item.step: item.eval_loss for item in read_metrics(work.directory / METRICS) if item.eval_loss}
    assert last.over
    assert last.step < 100
    assert min(evaluated, key=evaluated.get) == last.best_step == sorted(evaluated)[-3]
    assert checkpoint_path(work.checkpoints, last.best_step).is_dir()


def test_a_loss_that_is_not_finite_stops_the_run(train_here, base, tmp_path):
    import shutil

    broken = shutil.copytree(base, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    work, error = train_here(model=broken)
    assert error == (
        "the loss is not a finite number at step 1: training has diverged; "
        "lower --learning_rate from 0.01, and give another --output_dir"
    )
    assert read_metrics(work.directory / METRICS) == []
    assert last_checkpoint(work.checkpoints) is None


def test_out_of_memory_becomes_advice(train_here, monkeypatch):
    from rollmill.jobs.training.trainer import RowsTrainer

    def no_room(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(RowsTrainer, "training_step", no_room)
    _, error = train_here()
    assert error.startswith("memory ran out: lower --per_device_train_batch_size to 1 (and raise --gradient_acc")


def test_all_weights_train_without_lora(train_here, base):
    work, error = train_here(use_lora=False, learning_rate=1e-3, max_steps=1)
    assert error is None
    folder = checkpoint_path(work.checkpoints, 1)
    assert not (folder / "adapter_config.json").exists()
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_used_device_is_recorded(train_here):
    work, error = train_here(max_steps=1)
    assert error is None
    assert used_device(work) == {"device": "cpu", "dtype": "float32", "count": 1}


def test_unusable_gpu_is_refused_before_anything_is_read(train_here, tmp_path, monkeypatch):
    machine = FakeMachine(tmp_path / "machine", monkeypatch)
    machine.show("nvidiactl", driver="570.133.20")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "empty").mkdir()
    _, error = train_here(model=tmp_path / "empty", num_gpus=1)
    assert error.startswith(f"an NVIDIA GPU is here ({machine.dev}/nvidiactl, driver 570.133.20), and torch ")
    assert "or ask for the CPU: --device cpu" in error
    _, error = train_here(name="cpu", num_gpus=1, device="cpu", max_steps=1)
    assert error is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _, error = train_here(name="hidden", num_gpus=1, max_steps=1)
    assert error is None


def test_invalid_model_is_refused_in_one_line(train_here, tmp_path):
    (tmp_path / "empty").mkdir()
    _, error = train_here(model=tmp_path / "empty")
    assert error.startswith(f"cannot load the tokenizer of {tmp_path / 'empty'}")
