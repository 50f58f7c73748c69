import pytest

from rollmill.inference.server_log import ServerLog

QUOTED = """\
  File "worker.py", line 12, in start
    raise RuntimeError(
RuntimeError: this CPU cannot be bound
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (QUOTED, ": RuntimeError: this CPU cannot be bound"),
        ("    raise SomeError(\nand no more\n", ": raise SomeError("),
        ("api_server.py: error: unrecognized arguments: --x\n", ": api_server.py: error: unrecognized arguments: --x"),
        ("Loading\nERROR: killed\n", ""),
        ("(Core pid=7) ERROR 11-29 [core.py:9] ValueError: no\n", ": ValueError: no"),
    ],
)
def test_cause_in_a_log_is_the_last_named_error(tmp_path, log, why):
    path = tmp_path / "vllm.log"
    path.write_text("RuntimeError: of the server before\n")
    server_log = ServerLog(path)
    with path.open("a") as file:
        file.write(log)
    assert (
        str(server_log.death(1, "while starting")) == f"the server ended with code 1 while starting{why} (log: {path})"
    )


KV_CACHE = (
    "(EngineCore pid=7) ERROR 11-29 10:00:00 [core.py:1100] ValueError: To serve at least one request with the "
    "model's max seq len (131072), (16.0 GiB KV cache is needed, which is larger than the available KV cache memory "
    "(4.52 GiB). Based on the available memory, the estimated maximum model length is 37024. Try increasing "
    "`gpu_memory_utilization` (which also controls CPU memory on the CPU backend) or decreasing `max_model_len` when "
    "initializing the engine. See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details.\n"
)
NO_BLOCKS = "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`\n"
OCCUPIED = (
    "ValueError: Free memory on device cuda:0 (3.2/23.6 GiB) on startup is less than desired GPU memory utilization "
    "(0.9, 21.2 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.\n"
)
TORCH = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.16 GiB. GPU 0 has a total capacity of 23.6 GiB\n"
)
SAMPLER = "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.\n"
ABOVE = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
DRIVER = "RuntimeError: The NVIDIA driver on your system is too old (found version 12080).\n"


def death(tmp_path, log):
    path = tmp_path / "vllm.log"
    server_log = ServerLog(path)
    path.write_text(log)
    return str(server_log.death(1, "while starting"))


@pytest.mark.parametrize(
    ("log", "begins", "advice"),
    [
        (
            KV_CACHE + ABOVE,
            "ValueError: To serve at least one request with the model's max seq len (131072), (16.0 GiB KV cache is",
            'out of memory: give a shorter context (--vllm_args "--max-model-len 37024")',
        ),
        (
            NO_BLOCKS + ABOVE,
            "ValueError: No available memory for the cache",
            "out of memory: the weights leave no room",
        ),
        (OCCUPIED + ABOVE, "ValueError: Free memory on device cuda:0", "out of memory: lower --gpu-memory-utilization"),
        (
            TORCH + ABOVE,
            "torch.OutOfMemoryError: CUDA out of",
            "out of memory: lower --gpu-memory-utilization or --max-num",
        ),
        (
            SAMPLER + ABOVE,
            "RuntimeError: CUDA out of memory occurred",
            "out of memory: lower --gpu-memory-utilization or",
        ),
        (
            DRIVER + ABOVE,
            "RuntimeError: The NVIDIA driver on your",
            "vLLM cannot use the GPU: check the output of nvidia-smi",
        ),
        (
            "RuntimeError: Could not find nvcc and default\n" + ABOVE,
            "RuntimeError: Could not",
            "vLLM compiles kernels for this GPU",
        ),
        (
            "cuda_utils.c:1:10: fatal error: Python.h: No such file or directory\n",
            "cuda_utils.c",
            "vLLM compiles kernels for this",
        ),
        (
            KV_CACHE + "AttributeError: 'NoneType' has no attribute 'shutdown'\n",
            "ValueError: To serve",
            "out of memory",
        ),
    ],
)
def test_a_known_error_is_shown_with_advice(tmp_path, log, begins, advice):
    message = death(tmp_path, log)
    assert message.startswith(f"the server ended with code 1 while starting: {begins}")
    assert f"; {advice}" in message
    assert "See root cause above" not in message


def test_an_unknown_cause_has_no_advice(tmp_path):
    assert "memory" not in death(tmp_path, "ValueError: what is this\n" + ABOVE)


def test_a_context_that_was_reduced_is_read(tmp_path):
    path = tmp_path / "vllm.log"
    server_log = ServerLog(path)
    assert server_log.reduced_length() is None
    path.write_text(
        "INFO Auto-fit max_model_len: reduced from 131072 to 37024 to fit in available KV cache memory (4 GiB)\n"
    )
    assert server_log.reduced_length() == (131072, 37024)
