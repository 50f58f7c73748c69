"""The models that are measured: random ones, made on the device, of the shape of Qwen3."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.gpu.timing import GIB, device, free_cached, has_gpu

_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SPECIAL = ("<|end|>", "<|im_start|>", "<|im_end|>")
_SPREAD = 4.0
"""Standard deviation of the logits of a model that is saved: its special tokens, with logit 0, are then never drawn."""


class Size(NamedTuple):
    """A size of models, and the sizes of what they are given."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    keys: int
    width: int
    """Of a head."""
    vocabulary: int
    batches: tuple[int, ...]
    prompt: int
    """Tokens of a prompt."""
    tokens: int
    """New tokens of an answer."""


SIZES = {
    "tiny": Size("tiny", 64, 96, 2, 2, 2, 32, 2048, (1, 2), 8, 4),
    "0.6B": Size("0.6B", 1024, 3072, 28, 16, 8, 128, 151_936, (1, 8, 32, 64), 256, 64),
    "8B": Size("8B", 4096, 12_288, 36, 32, 8, 128, 151_936, (1, 8, 32, 64), 256, 64),
}
_TWO_LARGE_GIB = 48
"""Memory of a GPU that holds two models of 8B in bfloat16, with their caches."""


def choose_size(name: str, *, tiny: bool) -> Size:
    """Return the size that is asked for; for `auto`, the largest of which two fit on the GPU."""
    if tiny or (name == "auto" and not has_gpu()):
        return SIZES["tiny"]
    if name != "auto":
        return SIZES[name]
    return SIZES["8B" if torch.cuda.get_device_properties(0).total_memory >= _TWO_LARGE_GIB * GIB else "0.6B"]


class Subjects:
    """Models of one size, made when they are first used, and kept until `release`."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self._networks: dict[int, Any] = {}

    def release(self) -> None:
        """Drop all models, and free their memory."""
        self._networks.clear()
        free_cached()

    def network(self, seed: int) -> Any:
        """Return a network of q*, by the seed of its weights."""
        from rollmill.jobs.optimal_sampling.network import Network

        if seed not in self._networks:
            self._networks[seed] = Network(make_model(self.size, seed), f"model {seed}")
        return self._networks[seed]

    def pair(self, seeds: tuple[int, int] = (1, 2)) -> Any:
        """Return a pair of q*; of equal seeds, one set of weights that reads two prompts."""
        from rollmill.jobs.optimal_sampling.network import BASE
        from rollmill.jobs.optimal_sampling.pair import Pair, PairMember

        theta, t = (self.network(seed) for seed in seeds)
        return Pair(
            theta=PairMember(theta, BASE),
            t=PairMember(t, BASE),
            vocabulary=theta.ids,
            end_tokens=frozenset(),
            device=device(),
            used={"device": device().type, "dtype": "bfloat16" if has_gpu() else "float32", "count": 1},
        )

    def requests(self, count: int, *, hint: int = 0) -> list[Any]:
        """Return requests of random prompts; with `hint`, pi_t's prompts have so many tokens more."""
        from rollmill.jobs.optimal_sampling.samples import SampleRequest

        generator = torch.Generator().manual_seed(7)
        prompts = torch.randint(10, self.size.vocabulary, (count, self.size.prompt), generator=generator).tolist()
        return [
            SampleRequest(number, ids, ids if not hint else [*range(10, 10 + hint), *ids], number)
            for number, ids in enumerate(prompts)
        ]


def configuration(size: Size) -> Any:
    """Return the model's configuration."""
    from transformers import Qwen3Config

    return Qwen3Config(
        hidden_size=size.hidden, intermediate_size=size.intermediate, num_hidden_layers=size.layers,
        num_attention_heads=size.heads, num_key_value_heads=size.keys, head_dim=size.width,
        vocab_size=size.vocabulary, max_position_embeddings=4096, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip


def make_model(size: Size, seed: int) -> Any:
    """Return a random model on the device, in bfloat16 on a GPU."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    dtype = torch.bfloat16 if has_gpu() else torch.float32
    with device():
        model: Any = AutoModelForCausalLM.from_config(configuration(size), dtype=dtype)  # type: ignore[no-untyped-call]
    return model.eval()


def save_model(size: Size, folder: Path, seed: int = 1) -> Path:
    """Write a random model and a byte-level tokenizer to a folder, for programs that load one from disk."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = make_model(size, seed)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head.normal_(std=_SPREAD / size.hidden**0.5)
        head[: len(_SPECIAL)] = 0
    model.save_pretrained(folder)
    # Byte pairs without merges: each byte is a token, and the other ids are words that no text has.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*_SPECIAL, *letters]
    names += [f"<unused{number}>" for number in range(size.vocabulary - len(names))]
    tokenizer = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens(list(_SPECIAL))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", chat_template=_TEMPLATE
    ).save_pretrained(folder)
    return folder
