"""Tiny models, byte-level tokenizers with various chat templates, and training rows."""

from pathlib import Path

import orjson

PLAIN = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>\n{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED_CONTENT = MARKED.replace("<|im_end|>\n{% endgeneration %}", "{% endgeneration %}<|im_end|>\n")
LLAMA = (
    "{{ '<bos>' }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN = (  # leaves out the reasoning of earlier turns, and shows the last one's, empty if need be
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}"
    "{% if loop.last %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content.split('</think>')[-1] | trim }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS = (
    "{% for m in messages %}<|im_start|>{{ 'user' if m.role == 'tool' else m.role }}\n"
    "{% if m.role == 'tool' %}<tool_response>{{ m.content }}</tool_response>{% else %}{{ m.content }}{% endif %}"
    "{% for c in m.tool_calls or [] %}\n"
    "<tool_call>{{ c.function.name }} {{ c.function.arguments | tojson }}</tool_call>"
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = [
    *("<pad>", "<eos>", "<bos>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"),
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
]


def make_tokenizer(template=PLAIN, eos="<eos>", special=SPECIAL, **more):
    """A byte-level tokenizer: one token for each byte, and the special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    result = Tokenizer(models.BPE({token: number for number, token in enumerate([*special, *letters])}, []))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=result, pad_token="<pad>", eos_token=eos, chat_template=template, **more
    )


def make_byte_tokenizer(template=PLAIN, special=SPECIAL, **more):
    """A tokenizer whose token ids are the bytes' values, as a scripted server returns them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    vocabulary = {letter: number for number, letter in bytes_to_unicode().items()}
    result = Tokenizer(models.BPE(vocabulary | {token: 256 + n for n, token in enumerate(special)}, []))
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    result.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=result, pad_token="<pad>", eos_token="<eos>", chat_template=template, **more
    )


def make_base(folder: Path, template=PLAIN, hidden=32, seed=0):
    """A random llama of two layers, on disk."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(template)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def row(number=0, answer="yes", **more):
    """One conversation of one problem."""
    messages = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": answer}]
    return {"messages": messages, "metadata": {"instance_id": f"p{number}"}, **more}


def write_rows(path: Path, rows):
    """Write JSON Lines; texts are written as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"".join((item.encode() if isinstance(item, str) else orjson.dumps(item)) + b"\n" for item in rows)
    )
    return str(path)
