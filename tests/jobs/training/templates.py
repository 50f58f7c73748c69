"""Chat templates of model families, as TRL ships them, and tokenizers with their special tokens."""

import re
from functools import cache
from pathlib import Path

import trl

from tests.jobs.training.tiny_models import make_tokenizer

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja") if not path.stem.endswith("_training"))
_SPECIAL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜]{1,40}｜>|</?(?:start_of_turn|end_of_turn|s|bos|turn)>|<end_of_utterance>"
    r"|\[/?[A-Z_]{3,30}\]|<[a-z_]*\|>|<\|[a-z_]*>"
)
_ENDS = ("<|im_end|>", "<|eot_id|>", "<｜end▁of▁sentence｜>", "<|END_OF_TURN_TOKEN|>", "<|return|>", "<|endoftext|>")
_OTHER_ENDS = {"phi3": "<|endoftext|>", "phi3_5": "<|endoftext|>"}  # their templates write `eos_token`


def source(name):
    """Return a template of TRL."""
    return (FOLDER / f"{name}.jinja").read_text()


@cache
def tokenizer_of(name):
    """Return a byte-level tokenizer with a template of TRL and the special tokens that it writes."""
    result = sorted(set(_SPECIAL.findall(source(name))))
    eos = _OTHER_ENDS.get(name) or next((end for end in _ENDS if end in result), "<eos>")
    return make_tokenizer(
        source(name), eos, list(dict.fromkeys(["<pad>", "<eos>", "<bos>", eos, *result])), bos_token="<bos>"
    )
