"""The GPUs that a vLLM server takes, from its arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rollmill.errors import InputError
from rollmill.inference.server_size import ServerSize, check_heads, server_size


@pytest.mark.parametrize(
    ("arguments", "gpus"),
    [
        ("", 1),
        ("--max-model-len 8192 --enforce-eager", 1),
        ("--tensor-parallel-size 4", 4),
        ("--tensor-parallel-size=4", 4),
        ("--tensor_parallel_size 4", 4),
        ("--tensor_parallel_size=4", 4),
        ("--tensor-parallel 4", 4),
        ("-tp 4", 4),
        ("-tp=4", 4),
        ("-tp 4 --tensor-parallel-size 2", 2),
        ("-tp 2 -pp 2", 4),
        ("-tp 2 -pp 2 -dp 2", 8),
        ("-dp 8 --data-parallel-size-local 2 -tp 2", 4),  # the others are on other machines
        ("--prefill-context-parallel-size 2", 2),
        ("--decode-context-parallel-size 2 -tp 4", 4),  # within the tensor parallel group
        ("-tp many", 1),  # vLLM refuses it
        ("-tp 0", 1),
        ("--model -tp", 1),
    ],
)
def test_sizes_of_parallelism_are_multiplied(arguments: str, gpus: int) -> None:
    assert server_size(arguments.split()).gpus == gpus


@pytest.mark.parametrize(
    "arguments",
    ["--distributed-executor-backend ray", "--distributed_executor_backend=ray", "--data-parallel-backend ray",
     "--nnodes 2", "-dpb ray"],
)  # fmt: skip
def test_servers_on_several_machines_are_recognised(arguments: str) -> None:
    assert server_size(arguments.split()).is_distributed
    assert not server_size(["--distributed-executor-backend", "mp"]).is_distributed


def test_flags_and_memory_are_reported() -> None:
    assert server_size(["-tp", "2", "-pp", "1", "--gpu_memory_utilization", "0.4"]) == ServerSize(
        2, "--tensor-parallel-size 2", 0.4, 2
    )


def test_config_file_counts_below_the_arguments(tmp_path: Path) -> None:
    path = tmp_path / "vllm.yaml"
    path.write_text("tensor-parallel-size: 4\npipeline_parallel_size: 2\nmodel: m\nlora-modules: [a, b]\n")
    assert server_size(["--config", str(path)]).gpus == 8
    assert server_size([f"--config={path}", "-tp", "2"]).gpus == 4
    assert server_size(["--config", str(tmp_path / "none.yaml")]).gpus == 1
    path.write_text("tensor-parallel-size: [")
    assert server_size(["--config", str(path)]).gpus == 1


@pytest.mark.parametrize("config", [{"num_attention_heads": 14}, {"text_config": {"num_attention_heads": 14}}])
def test_tensor_parallel_size_divides_the_attention_heads(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    for size in (1, 2, 7):
        check_heads(str(tmp_path), server_size(["-tp", str(size)]))
    check_heads("org/model", server_size(["-tp", "4"]))
    with pytest.raises(
        InputError, match=r"^--vllm_args: --tensor-parallel-size 4 does not divide the 14 attention heads of /"
    ):
        check_heads(str(tmp_path), server_size(["-tp", "4"]))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"num_attention_heads": null}'])
def test_unreadable_config_of_a_model_is_left_to_vllm(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    check_heads(str(tmp_path), server_size(["-tp", "4"]))
