"""Models, adapters and checkpoints from others: no code in the folder is run."""

import contextlib
import json
import pickle
import shutil
from pathlib import Path

import pytest

from tests.flows.conftest import end_prepared

__all__ = ["end_prepared"]
pytestmark = [
    pytest.mark.slow,  # torch and transformers are imported
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

CODE = """
open({marker!r}, "w").close()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = "evil"
class Model(LlamaForCausalLM): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""


class Payload:
    """Makes a file where it is unpickled."""

    def __init__(self, marker):
        self._marker = str(marker)

    def __reduce__(self):
        return open, (self._marker, "w")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from tests.jobs.training.tiny_models import make_base

    return make_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def marker(tmp_path, monkeypatch):
    """The file that appears where code of the folder runs; whoever is asked whether it may run says yes."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return tmp_path / "pwned"


@pytest.fixture
def with_code(base, tmp_path, marker):
    """A model whose configuration, weights and tokenizer all name classes in a file beside them."""
    folder = Path(shutil.copytree(base, tmp_path / "theirs"))
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    for name, class_name in (
        ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config",
                         "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}}),
        ("tokenizer_config.json", {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]}}),
    ):  # fmt: skip
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | class_name))
    return folder


def loads(folder):
    """Every way in which a model's folder is read here, by name."""
    from rollmill.exports.token_counter import TokenCounter
    from rollmill.jobs.optimal_sampling.model_spec import logits_of, resolve_pair
    from rollmill.jobs.optimal_sampling.pair import load_pair
    from rollmill.jobs.training.parameters import TrainLora
    from rollmill.jobs.training.trainer import load_base
    from rollmill.jobs.training.worker import _tokenizer, model_length

    parameters = TrainLora(model_path=folder, train_data=["x.jsonl"], output_dir="x")
    return {
        "curation": lambda: TokenCounter(folder),
        "pair": lambda: load_pair(resolve_pair(folder)),
        "logits": lambda: logits_of(folder),
        "training tokenizer": lambda: _tokenizer(folder),
        "training length": lambda: model_length(folder),
        "training model": lambda: load_base(folder, parameters),
    }


@pytest.mark.parametrize(
    "name", ["curation", "pair", "logits", "training tokenizer", "training length", "training model"]
)
def test_code_in_a_model_s_folder_does_not_run(with_code, marker, name):
    from rollmill.errors import InputError

    with contextlib.suppress(InputError):  # a tokenizer may be read without its class
        loads(str(with_code))[name]()
    assert not marker.exists()
    assert not (marker.parent / "modules").exists()


@pytest.mark.parametrize("name", ["pair", "training model"])
def test_pickled_weights_run_nothing(base, tmp_path, marker, name):
    import torch

    from rollmill.errors import InputError

    folder = Path(shutil.copytree(base, tmp_path / "theirs"))
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Payload(marker)}, folder / "pytorch_model.bin")
    with pytest.raises((InputError, pickle.UnpicklingError)):
        loads(str(folder))[name]()
    assert not marker.exists()


def test_pickled_weights_of_an_adapter_are_refused(base, tmp_path, marker):
    from rollmill.errors import InputError
    from rollmill.jobs.optimal_sampling.model_spec import resolve_pair
    from tests.inference.adapters import write_adapter

    folder = write_adapter(tmp_path / "adapter", base_model_name_or_path=str(base))
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({"weight": Payload(marker)}))
    with pytest.raises(InputError, match=r"has no adapter_model.safetensors: save it completely, as safetensors"):
        resolve_pair(str(base), adapter_theta=str(folder))
    assert not marker.exists()


def test_a_module_that_an_adapter_names_is_not_imported(base, tmp_path, monkeypatch, marker):
    from rollmill.jobs.optimal_sampling.model_spec import resolve_pair
    from rollmill.jobs.optimal_sampling.pair import load_pair
    from tests.inference.adapters import make_adapter

    (tmp_path / "evil.py").write_text(CODE.format(marker=str(marker)))
    monkeypatch.syspath_prepend(tmp_path)
    make_adapter(tmp_path / "adapter", str(base))
    config = tmp_path / "adapter/adapter_config.json"
    settings = {"megatron_config": {"a": 1}, "megatron_core": "evil", "auto_mapping": {"base_model_class": "Model",
           "parent_library": "evil"}}  # fmt: skip
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))
    with contextlib.suppress(ValueError):  # PEFT refuses the name
        load_pair(resolve_pair(str(base), adapter_theta=str(tmp_path / "adapter")))
    assert not marker.exists()


def test_a_chat_template_reaches_no_code(base, tmp_path, monkeypatch):
    from rollmill.exports.token_counter import TokenCounter

    folder = Path(shutil.copytree(base, tmp_path / "theirs"))
    attack = "{{ cycler.__init__.__globals__.os.system('touch pwned') }}{{ messages.append(1) }}"
    (folder / "chat_template.jinja").write_text(attack)
    monkeypatch.chdir(tmp_path)
    counter = TokenCounter(str(folder))
    assert counter.count([[{"role": "user", "content": "x"}]]) == [1]
    assert counter.without_template == 1
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_checkpoint_that_somebody_has_changed_runs_nothing(base, tmp_path, monkeypatch, marker, name):
    import torch

    from rollmill.errors import InputError, RunStoppedError
    from rollmill.jobs.training.checkpoints import CHECKPOINTS, checkpoint_path, complete_checkpoints
    from rollmill.jobs.training.parameters import TrainLora
    from rollmill.jobs.training.training import run_training
    from tests.jobs.training.prepared_workers import prepared_workers
    from tests.jobs.training.tiny_models import row, write_rows

    rows = write_rows(tmp_path / "train.jsonl", [row(n, "ab" * (n % 5 + 1)) for n in range(24)])
    parameters = TrainLora(
        model_path=str(base), train_data=rows, output_dir=str(tmp_path / "run"), max_length=128, lora_r=4, save_steps=2,
        num_train_epochs=6, num_gpus=0,
    )  # fmt: skip
    checkpoints = tmp_path / "run" / CHECKPOINTS
    with prepared_workers(), pytest.raises(RunStoppedError):
        run_training(parameters, stop=lambda: bool(complete_checkpoints(checkpoints)))
    for checkpoint in complete_checkpoints(checkpoints):  # whichever is the one that it continues from
        torch.save({"state": Payload(marker)}, checkpoint_path(checkpoints, checkpoint.step) / name)
    with prepared_workers():
        if name == "training_args.bin":
            run_training(parameters)  # nobody reads it
        else:
            with pytest.raises(InputError, match="contains pickled objects other than tensors, and is not read"):
                run_training(parameters)
    assert not marker.exists()
