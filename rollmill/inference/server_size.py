"""Reads from vLLM's arguments how many GPUs a server takes."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import orjson

from rollmill.errors import InputError
from rollmill.files.bounded_yaml import BadYamlError, read_yaml
from rollmill.inference.machine import flag_value

_SIZES = {
    "--tensor-parallel-size": "-tp",
    "--pipeline-parallel-size": "-pp",
    "--prefill-context-parallel-size": "-pcp",
    "--data-parallel-size": "-dp",
    "--data-parallel-size-local": "-dpl",
}
_RAY = (("--distributed-executor-backend",), ("--data-parallel-backend", "-dpb"), ("--nnodes", "-n"))
MEMORY = "--gpu-memory-utilization"


class ServerSize(NamedTuple):
    """The GPUs and the memory that one server takes."""

    gpus: int = 1
    """Number of GPUs on this machine."""
    flags: str = ""
    """The arguments that make it more than one, for messages."""
    memory: float | None = None
    """Share of each GPU's memory that the arguments ask for; None for vLLM's default."""
    tensor: int = 1
    """Tensor parallel size."""
    is_distributed: bool = False
    """True for a server whose processes Ray or several machines hold: then vLLM itself looks for GPUs."""


class _BadArgumentError(Exception):
    """A value that is not of its flag's type: vLLM refuses it itself."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the process."""
        raise _BadArgumentError(message)


def server_size(arguments: Sequence[str]) -> ServerSize:
    """Return how many GPUs a vLLM server with these arguments takes, from its sizes of parallelism.

    They are read as vLLM does: of repeated ones the last counts, they may be written with `_` and cut short, and a file
    of `--config` counts below them. The number is tensor x pipeline x prefill context x data parallel size
    (`ParallelConfig` in https://github.com/vllm-project/vllm/blob/main/vllm/config/parallel.py).
    """
    parser = _Parser(add_help=False)
    for flag, short in _SIZES.items():
        parser.add_argument(flag, short, type=int)
    for names in _RAY:
        parser.add_argument(*names)
    parser.add_argument(MEMORY, type=float)
    try:
        values = vars(parser.parse_known_args([*_of_file(arguments), *map(_with_dashes, arguments)])[0])
    except _BadArgumentError:
        return ServerSize()
    sizes = {flag: max(1, values[_key(flag)] or 1) for flag in _SIZES}
    if values[_key("--data-parallel-size-local")] is None:
        sizes.pop("--data-parallel-size-local")
    else:
        sizes.pop("--data-parallel-size")
    gpus = 1
    for size in sizes.values():
        gpus *= size
    return ServerSize(
        gpus,
        " ".join(f"{flag} {size}" for flag, size in sizes.items() if size > 1),
        values[_key(MEMORY)],
        sizes["--tensor-parallel-size"],
        "ray" in (values["distributed_executor_backend"], values["data_parallel_backend"])
        or values["nnodes"] not in (None, "1"),
    )


def check_heads(model: str, size: ServerSize) -> None:
    """Raise `InputError` where the tensor parallel size does not divide the attention heads of a model's directory.

    vLLM refuses it, too, after its start (`verify_with_parallel_config` of its `ModelConfig`).
    """
    path = Path(model).expanduser() / "config.json"
    if size.tensor == 1 or not path.is_file():
        return
    try:
        config = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):  # vLLM reports it
        return
    text = config.get("text_config") if isinstance(config, dict) else None
    heads = next((each.get("num_attention_heads") for each in (text, config) if isinstance(each, dict)), None)
    if isinstance(heads, int) and heads % size.tensor:
        raise InputError(
            f"--vllm_args: --tensor-parallel-size {size.tensor} does not divide the {heads} attention heads of "
            f"{model}: give a size that does"
        )


def _key(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _with_dashes(argument: str) -> str:
    """Return an argument with its flag in dashes: `--tensor-parallel-size=2` for `--tensor_parallel_size=2`."""
    flag, equals, value = argument.partition("=")
    return f"{flag.replace('_', '-')}{equals}{value}" if flag.startswith("--") else argument


def _of_file(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments in the file of `--config`; none where it cannot be read, which vLLM reports."""
    path = flag_value(arguments, "--config")
    if path is None:
        return
    try:
        values = read_yaml(Path(path).read_bytes()).value
    except (OSError, BadYamlError):
        return
    yield from _as_arguments(values)


def _as_arguments(values: Any) -> Iterable[str]:
    named = values if isinstance(values, dict) else {}
    return (
        f"--{str(name).replace('_', '-')}={value}"
        for name, value in named.items()
        if isinstance(value, str | int | float)
    )
