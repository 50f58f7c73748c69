"""Counts kernels and waits of the host in one decoding step of q*, on a CPU.

A step of two large models is slower than the memory of the device allows, where the device waits for kernels that are
launched one by one, or for the host to look at a result. Both follow from the operations alone, and can be counted
without a GPU: on models with the layers and the vocabulary of a real one, and a tiny width.

An operation counts as one kernel, a view as none. A wait is what makes a host read the device's memory, or copy its own
to it from memory that is not pinned. The code runs as on a GPU, but for graphs: with them, a network's kernels are
launched together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.jobs.optimal_sampling.decoding import Decoder
from rollmill.jobs.optimal_sampling.network import BASE, Network
from rollmill.jobs.optimal_sampling.pair import Pair, PairMember
from rollmill.jobs.optimal_sampling.samples import SampleRequest

METHODS = ("fixed", "entropy", "kl_symmetry", "ess_balance", "reverse_kl_symmetry")
MOST_WAITS = 1
_VIEWS = frozenset(
    [
        *("view", "_unsafe_view", "reshape", "t", "transpose", "permute", "expand", "slice", "select", "unsqueeze"),
        *("squeeze", "split", "split_with_sizes", "unbind", "alias", "detach", "as_strided", "chunk", "flatten"),
        *("empty", "empty_like", "empty_strided", "new_empty", "lift_fresh", "is_pinned", "unflatten", "view_as"),
    ]
)
_WAITS = frozenset(
    [
        *("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero"),
        *("masked_select", "unique"),
    ]
)


class Count(NamedTuple):
    """The kernels and waits of a part of a step."""

    kernels: int
    waits: int


class _Kernels(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that compute."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it; torch documents the arguments.

        Args:
            func: The operation.
            types: Not used.
            args: Of the operation.
            kwargs: Of the operation; None for none.
        """
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        # A conversion to the dtype that a tensor has returns the tensor itself.
        if name not in _VIEWS and not (args and result is args[0] and not name.endswith("_")):
            self.names[name] += 1
        return result


class _Waits(TorchFunctionMode):
    """Counts the calls in which a host with a GPU waits for it, and has the code take the paths of a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function and count it if the host would wait; torch documents the arguments.

        Args:
            func: The function.
            types: Not used.
            args: Of the function.
            kwargs: Of the function; None for none.
        """
        kwargs = kwargs or {}
        if func == Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
            return False
        name = getattr(func, "__name__", "")
        if name in _WAITS or _copies_from_host(name, args, kwargs):
            self.names[name] += 1
        return func(*args, **kwargs)


def _copies_from_host(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether a call copies numbers of the host to the device, or must know how many a mask has."""
    if name in ("tensor", "as_tensor"):
        return "device" in kwargs and not isinstance(args[0], Tensor)
    if name not in ("__getitem__", "__setitem__"):
        return False
    parts = args[1] if isinstance(args[1], tuple) else (args[1],)
    return any(isinstance(part, list) or (isinstance(part, Tensor) and part.dtype == torch.bool) for part in parts)


@contextmanager
def counting() -> Iterator[Callable[[], Count]]:
    """Count during the block; yields a function that returns the count so far."""
    with _Waits() as waits, _Kernels() as kernels:
        yield lambda: Count(kernels.names.total(), waits.names.total())


def make_pair(layers: int, vocabulary: int) -> Pair:
    """Return two random models with the layers of Qwen3 and a width of 32."""
    return Pair(
        theta=PairMember(_network(layers, vocabulary, 0), BASE),
        t=PairMember(_network(layers, vocabulary, 1), BASE),
        vocabulary=vocabulary,
        end_tokens=frozenset(),
        device=torch.device("cpu"),
        used={"dtype": "float32"},
    )


def _network(layers: int, vocabulary: int, seed: int) -> Network:
    from transformers import AutoModelForCausalLM, Qwen3Config

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=16, tie_word_embeddings=True, initializer_range=0.3,
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    return Network(model, f"model {seed}")


def count_step(pair: Pair, method: str, batch: int, **settings: Any) -> tuple[Count, Count]:
    """Return what the passes of a decoding step take, and what its draw takes.

    Args:
        pair: The two models.
        method: How alpha is chosen.
        batch: Samples at once.
        settings: More arguments of `Decoder`.
    """
    decoder = Decoder(pair, batch_size=batch, max_new_tokens=4, alpha_method=method, **settings)
    passes, draws = _counted(decoder, "_advance"), _counted(decoder._sampler, "draw")
    prompts = [[5 + number, 7, 11] for number in range(batch)]
    list(decoder.decode(SampleRequest(key, prompt, prompt, key) for key, prompt in enumerate(prompts)))
    return passes[-1], draws[-1]


def _counted(owner: Any, method: str) -> list[Count]:
    """Replace a method by one that counts; return the list that gets the count of each call."""
    counts: list[Count] = []
    original = getattr(owner, method)

    def call(*args: Any) -> Any:
        with counting() as count:
            result = original(*args)
        counts.append(count())
        return result

    setattr(owner, method, call)
    return counts


def main() -> None:
    """Print the counts by method."""
    parser = arguments(__doc__)
    parser.add_argument("--layers", type=int, default=36, help="layers of each model; those of Qwen3-8B")
    parser.add_argument("--vocabulary", type=int, default=151_936, help="tokens of the vocabulary; Qwen3's")
    parser.add_argument("--batch", type=int, default=8, help="samples at once")
    options = parser.parse_args()
    pair = make_pair(options.layers, options.vocabulary)
    counts = {method: count_step(pair, method, options.batch) for method in METHODS}
    rows = [
        {
            "alpha": method,
            "kernels of two passes": f"{passes.kernels:,}",
            "kernels of the draw": f"{draw.kernels:,}",
            "waits of the host": str(passes.waits + draw.waits),
        }
        for method, (passes, draw) in counts.items()
    ]
    show(f"one step of two models of {options.layers} layers, {options.batch} samples", rows)
    targets = Targets()
    for method, (passes, draw) in counts.items():
        targets.at_most(f"waits of the host, {method}", passes.waits + draw.waits, MOST_WAITS)
    targets.end(check=options.check)


if __name__ == "__main__":
    main()
