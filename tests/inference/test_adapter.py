import orjson
import pytest

from rollmill.errors import InputError
from rollmill.inference import adapter as adapter_module
from rollmill.inference.adapter import adapter_arguments, read_adapter
from tests.inference.adapters import write_adapter


@pytest.fixture(params=[True, False])
def max_loras(request, monkeypatch):
    """The arguments for one adapter, and for two: on a CPU one slot more, which stays empty."""
    monkeypatch.setattr(adapter_module, "has_accelerator", lambda: request.param)
    return ([], ["--max-loras", "2"]) if request.param else (["--max-loras", "2"], ["--max-loras", "3"])


def test_adapter_gives_the_vllm_arguments(tmp_path, monkeypatch, max_loras):
    write_adapter(tmp_path / "a=1,b")
    monkeypatch.chdir(tmp_path)
    adapter = read_adapter("a=1,b")
    assert (adapter.folder, adapter.base, adapter.rank) == (tmp_path / "a=1,b", "org/base", 4)
    *flags, module = adapter.arguments("run=1,a")
    assert flags == ["--enable-lora", "--max-lora-rank", "8", *max_loras[0], "--lora-modules"]
    assert orjson.loads(module) == {"name": "run=1,a", "path": str(tmp_path / "a=1,b")}


def test_an_adapter_with_stop_tokens_sets_the_generation_config(tmp_path):
    adapters = {name: read_adapter(write_adapter(tmp_path / name)) for name in "ab"}
    assert "--generation-config" not in adapter_arguments(adapters)
    (tmp_path / "b" / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    flags = adapter_arguments(adapters)
    assert flags[flags.index("--generation-config") + 1] == str(tmp_path / "b")


def test_several_adapters_are_served_with_the_highest_rank(tmp_path, max_loras):
    adapters = {name: read_adapter(write_adapter(tmp_path / name, r=rank)) for name, rank in (("a", 4), ("b", 9))}
    *flags, a, b = adapter_arguments(adapters)
    assert flags == ["--enable-lora", "--max-lora-rank", "16", *max_loras[1], "--lora-modules"]
    assert [orjson.loads(module)["name"] for module in (a, b)] == ["a", "b"]
    assert adapter_arguments({}) == []


@pytest.mark.parametrize(
    ("config", "rank"),
    [({"r": 1}, 1), ({"r": 8}, 8), ({"r": 9}, 16), ({"r": 257}, 320), ({"r": 512}, 512), ({"r": 256}, 256),
     ({"rank_pattern": {"q_proj": 48, "v_proj": 2}}, 64), ({"rank_pattern": None}, 8)],
)  # fmt: skip
def test_the_least_rank_that_vllm_takes_and_that_is_enough(tmp_path, config, rank):
    assert read_adapter(write_adapter(tmp_path, **config)).arguments("m")[2] == str(rank)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"peft_type": "IA3"}, "is not a LoRA adapter: its peft_type is IA3: merge it"),
        ({"r": None}, r"has ranks \[None\]"),
        ({"r": 0}, r"has ranks \[0\]"),
        ({"rank_pattern": {"q": "x"}}, r"has ranks \[4, 'x'\]"),
        ({"rank_pattern": [3]}, r"has ranks \[4, \[3\]\]"),
        ({"modules_to_save": ["lm_head", "embed_tokens"]}, r"modules_to_save: lm_head, embed_tokens\): merge it into"),
        ({"use_dora": True}, "it is a DoRA adapter: merge it into its base, and give that as --model_path"),
        ({"bias": "all"}, "it has biases"),
        ({"lora_bias": True}, "it has biases"),
        ({"r": 513}, "its rank is 513, and the highest that vLLM serves is 512"),
    ],
)
def test_unservable_adapter_is_refused_in_one_line(tmp_path, config, why):
    with pytest.raises(InputError, match=why) as caught:
        read_adapter(write_adapter(tmp_path, **config))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_invalid_adapter_is_refused_in_one_line(tmp_path):
    with pytest.raises(InputError, match="there is no adapter directory org/adapter: give a local one"):
        read_adapter("org/adapter")
    with pytest.raises(InputError, match="is not a LoRA adapter: adapter_config"):
        read_adapter(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="is not a LoRA adapter but a complete model: give it as --model_path"):
        read_adapter(tmp_path)
    write_adapter(tmp_path)
    assert read_adapter(tmp_path).rank == 4
    for text, why in (("[]", "is not a JSON object"), ("{", "cannot be read")):
        (tmp_path / "adapter_config.json").write_text(text)
        with pytest.raises(InputError, match=why):
            read_adapter(tmp_path)
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="has no adapter_model"):
        read_adapter(tmp_path)


def test_its_identity_is_what_is_served_and_nothing_beside_it(tmp_path):
    folder = write_adapter(tmp_path / "one")
    seen = {read_adapter(folder).identity}
    for name in ("evaluation.json", "manifest.json", "tokenizer.json", "config.json"):
        (folder / name).write_text("{}")
    (folder / "before").mkdir()
    moved = folder.rename(tmp_path / "two")
    assert {read_adapter(moved).identity} == seen
    write_adapter(moved, r=5)
    seen.add(read_adapter(moved).identity)
    with (moved / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    seen.add(read_adapter(moved).identity)
    assert len(seen) == 3


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "(a|aa)+$"},
        {"target_modules": r"([\\w.]|[\\w.]{2})*!"},
        {"exclude_modules": ".*.*.*.*.*x"},
        {"rank_pattern": {"(.+)+x": 4}},
        {"alpha_pattern": {"(?:.|..){1,99}x": 4}},
    ],
)
def test_an_exponential_module_pattern_is_refused(tmp_path, config):
    with pytest.raises(InputError, match="has a pattern of modules that may take forever to match"):
        read_adapter(write_adapter(tmp_path, **config))


@pytest.mark.parametrize(
    "pattern", ["all-linear", r".*\\.layers\\.\\d+\\.self_attn\\.(q|k|v)_proj", ["q_proj", "v_proj"]]
)
def test_patterns_as_people_write_them_are_taken(tmp_path, pattern):
    assert read_adapter(write_adapter(tmp_path, target_modules=pattern)).rank == 4
