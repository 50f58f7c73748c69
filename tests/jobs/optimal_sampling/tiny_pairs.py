"""Tiny random models over a few words, and the expected answers, computed by code other than the package's."""

import functools
import itertools

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from rollmill.jobs.optimal_sampling import pair
from rollmill.jobs.optimal_sampling.decoding import Decoder
from rollmill.jobs.optimal_sampling.model_spec import resolve_pair
from rollmill.jobs.optimal_sampling.samples import SampleRequest

WORDS = 12
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES["num_key_value_heads"] = 2
KINDS = {
    "llama": ("LlamaConfig", {**SIZES, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2Config", SIZES),
    "qwen3": ("Qwen3Config", {**SIZES, "head_dim": 8}),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}),
    "mistral": ("MistralConfig", {**SIZES, "sliding_window": 48}),
    "mamba": ("MambaConfig", {"hidden_size": 16, "num_hidden_layers": 1}),
}
TEMPLATE = "{% for m in messages %}{{ m.content }} w2 {% endfor %}"


def make_tokenizer(words=WORDS, template=TEMPLATE, eos="w1", names=None):
    """`w0`, `w1`, ...: one token each."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    names = names or [f"w{number}" for number in range(words)]
    result = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="w0"))
    result.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=result, eos_token=eos, chat_template=template)


def make_config(kind, ids, **more):
    name, sizes = KINDS[kind]
    scale = {"initializer_range": 0.4}
    return getattr(transformers, name)(**{"vocab_size": ids, "bos_token_id": None, **scale, **sizes, **more})


def make_model(folder, *, kind="llama", seed=0, words=WORDS, ids=None, eos=1, tokenizer=None, **more):
    """A model whose answers end with `eos`, in a folder."""
    torch.manual_seed(seed)
    config = make_config(kind, ids or words, eos_token_id=eos, **more)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # biases and norms begin at constants
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
    model.save_pretrained(folder)
    (tokenizer or make_tokenizer(words)).save_pretrained(folder)
    return str(folder)


@functools.cache
def load_model(folder, dtype=torch.float64):
    """The model, as Transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def log_probs(folder, ids, dtype=torch.float64):
    """log pi(. | ids) by one pass without any cache."""
    with torch.inference_mode():
        logits = load_model(folder, dtype)(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits.double().log_softmax(-1).numpy()


def mixture(log_theta, log_t, alpha):
    log_q = alpha * log_theta + (1 - alpha) * log_t
    return log_q - np.logaddexp.reduce(log_q)


def weight(log_theta, log_t, method, fixed=0.5):
    """alpha, in float64."""
    if method == "fixed":
        return fixed
    if method == "entropy":
        item, other = (-(np.exp(p) * p).sum() for p in (log_theta, log_t))
        return item / (item + other)
    assert method == "kl_symmetry"
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if (np.exp(mixture(log_theta, log_t, middle)) * (log_t - log_theta)).sum() > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def cut(log_q, temperature=1.0, top_p=1.0, top_k=-1):
    """Probabilities after temperature, top-k and top-p, token by token."""
    if temperature == 0:
        return np.eye(len(log_q))[log_q.argmax()]
    p = np.exp(log_q / temperature - np.logaddexp.reduce(log_q / temperature))
    order = [int(token) for token in np.argsort(-p, kind="stable")]
    if top_k > 0:
        order = order[:top_k]
    kept, reached, all_of = [], 0.0, sum(p[token] for token in order)
    for token in order:
        kept.append(token)
        reached += p[token] / all_of
        if reached >= top_p:
            break
    out = np.zeros_like(p)
    out[kept] = p[kept]
    return out / out.sum()


def load_pair(model_theta, model_t=None, *, adapter_theta=None, adapter_t=None, **settings):
    chosen = resolve_pair(model_theta, model_t, adapter_theta=adapter_theta, adapter_t=adapter_t)
    return pair.load_pair(chosen, **settings)


def requests(pairs, first=0):
    return [SampleRequest(first + n, list(a), list(b), seed=1000 + first + n) for n, (a, b) in enumerate(pairs)]


def decode(pair, samples, **settings):
    """Key -> what was drawn."""
    return {item.key: item for item in Decoder(pair, **settings).decode(samples)}


def count_passes(network):
    """The rows and tokens of every pass from now on."""
    seen = []
    network.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return seen


def answers(folders, prompts, ends, most, *, words=5, method, fixed=0.5, **cuts):
    """Every answer of at most so many tokens -> its probability; ids from `words` on are not drawn."""

    @functools.cache
    def follow(before):
        known = (log_probs(folder, [*p, *before])[:words] for folder, p in zip(folders, prompts, strict=True))
        log_theta, log_t = (log_p - np.logaddexp.reduce(log_p) for log_p in known)
        return cut(mixture(log_theta, log_t, weight(log_theta, log_t, method, fixed)), **cuts)

    result = {}
    for length in range(1, most + 1):
        for answer in itertools.product(range(words), repeat=length):
            if set(answer[:-1]) & set(ends) or (length < most and answer[-1] not in ends):
                continue
            result[answer] = np.prod([follow(answer[:index])[answer[index]] for index in range(length)])
    assert abs(sum(result.values()) - 1) < 1e-12
    return result


def chi_square(counts, expected):
    """The statistic and its degrees of freedom; answers that should come less than 10 times are counted as one."""
    total = sum(counts.values())
    rare = [answer for answer, p in expected.items() if p * total < 10]
    cells = [([answer], expected[answer]) for answer in expected if answer not in set(rare)]
    cells += [(rare, sum(expected[answer] for answer in rare))]
    cells = [(sum(counts.get(answer, 0) for answer in group), p * total) for group, p in cells if p > 0]
    return sum((seen - p) ** 2 / p for seen, p in cells), len(cells) - 1


def upper_bound(degrees, z=3.72):
    """What chi-square with so many degrees exceeds once in ten thousand times (Wilson and Hilferty)."""
    return degrees * (1 - 2 / (9 * degrees) + z * (2 / (9 * degrees)) ** 0.5) ** 3
