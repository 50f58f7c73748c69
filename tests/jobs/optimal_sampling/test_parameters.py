import subprocess
import sys

import pytest

from rollmill.config.command_line import parse_command_line
from rollmill.jobs.optimal_sampling.alpha import METHODS
from rollmill.jobs.optimal_sampling.parameters import OptimalSampling

NEEDED = ["--model_theta", "m", "--dataset", "d.jsonl", "--output", "data/generated.jsonl"]


def parse(*flags):
    return parse_command_line(OptimalSampling, [*NEEDED, *flags], prog="optimal_sampling", description="", examples="")


def test_known_commands_are_parsed():
    requested = parse("--model_t", "n", "--alpha_method", "fixed", "--fixed_alpha", "0.3", "--num-samples", "1000",
                  "--batch_size", "8", "--save_diagnostics", "--dtype", "bfloat16", "--top_k", "-1",
                  "--start_idx", "500", "--dataset_adapter", "generic", "--prompt_field", "q")  # fmt: skip
    assert (requested.fixed_alpha, requested.total_rollouts, requested.start_idx, requested.top_k) == (
        0.3,
        1000,
        500,
        -1,
    )
    assert requested.save_diagnostics
    assert str(requested.directory) == "data/generated"
    assert str(requested.diagnostics) == "data/generated.diagnostics.jsonl"


def test_defaults():
    requested = parse()
    assert (requested.alpha_method, requested.batch_size, requested.max_tokens, requested.temperature) == (
        "kl_symmetry",
        8,
        512,
        1,
    )
    assert (requested.dataset_split, requested.dataset_adapter, requested.shard_size, requested.dtype) == (
        "train",
        "auto",
        64,
        "auto",
    )


def test_the_methods_are_those_of_the_solver():
    schema = OptimalSampling.model_json_schema()["properties"]["alpha_method"]
    assert set(schema["enum"]) == set(METHODS)


@pytest.mark.parametrize(
    ("options", "is_policy"),
    [
        ((), True),
        (("--model_t", "./m"), True),
        (("--model_t", "n"), False),
        (("--hint", "h"), False),
        (("--adapter_theta", "a"), False),
        (("--adapter_theta", "a", "--adapter_t", "a"), True),
    ],
)
def test_equal_models_are_recognised(options, is_policy):
    assert parse(*options).is_policy == is_policy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backend", "abacus"), "--backend: 'abacus' is not one of transformers, vllm"),
        (("--vllm_args", "--seed 1"), "--vllm_args is for --backend vllm"),
        (("--backend", "vllm", "--vllm_args", "'"), "No closing quotation"),
        (("--backend", "vllm", "--vllm_args", "-tp 2"), "--vllm_args: -tp 2: the pair engine is on one device"),
        (("--backend", "vllm", "--device", "cuda:1"), "--device cuda:1: vLLM takes the device that it is built for"),
        (
            ("--device", "cpu", "--device_t", "cuda:1"),
            "--device_t cuda:1: without --model_t there is",
        ),
        (("--model_t", "n", "--device_t", "cuda:1"), "--device_t cuda:1: name --device, too, as in --device cuda:0"),
        (("--backend", "vllm", "--device_t", "cuda:1"), "--device_t cuda:1: vLLM takes the device"),
        (("--alpha_method", "kl"), "'kl' is not one of kl_symmetry, fixed, entropy"),
        (("--fixed_alpha", "0.3"), "--fixed_alpha 0.3: --alpha_method kl_symmetry finds its own"),
        (("--fixed_alpha", "1.3", "--alpha_method", "fixed"), "--fixed_alpha: 1.3 is too large: must be at most 1"),
        (("--alpha_tol", "0"), "--alpha_tol"),
        (("--temperature", "-1"), "--temperature: -1 is too small"),
        (("--top_p", "0"), "--top_p: 0 is too small"),
        (("--top_k", "-2"), "--top_k"),
        (("--max_new_tokens", "0"), "--max_new_tokens"),
        (("--start_idx", "-1"), "--start_idx"),
        (("--num_samples", "0"), "--num_samples"),
        (("--dtype", "half"), "--dtype: 'half' is not one of auto, float16, bfloat16, float32"),
        (("--dataset_adapter", "mine"), "give auto, deepscaler, generic, or the path of a class"),
        (("--dataset_adapter", "generic"), "needs --prompt_field"),
        (("--dataset_adapter", "a:B", "--prompt_field", "q"), "leave out --prompt_field"),
        (("--batch_size", "65"), "--batch_size 65 is never filled by shards of 64 rows"),
        (("--cluster_block", "c", "--workers", "2"), "give --cluster_block or --gpu_workers, not both"),
        (("--output", "generated.json"), "ends in .jsonl"),
        (("--output", "a.diagnostics.jsonl"), "ends in .jsonl"),
        (("--output", "./d.jsonl"), "--output ./d.jsonl is the data set"),
    ],
)
def test_mistakes_are_one_line(options, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(*options)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line


def test_help_and_analysis_need_neither_torch_nor_prefect():
    code = "import sys, rollmill.reports.plots.optimal_sampling\n"
    code += "from rollmill.jobs.optimal_sampling import analysis, commands\n"
    code += "print([name for name in ('torch', 'transformers', 'prefect', 'distributed') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
