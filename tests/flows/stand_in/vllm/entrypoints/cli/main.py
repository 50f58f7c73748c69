"""Replaces `vllm serve` by a server with scripted answers and failures, with the same command line.

With several served names, the others answer like the first.
`--learned SCRIPT` is the behaviour of trained models: of a merged model, and of an adapter. Adapters are checked, and
listed after their base, as by vLLM.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import ClassVar

import orjson

from rollmill.inference import scripted
from rollmill.inference.scripted import Script, ScriptedServer

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


class WithAdapters(ScriptedServer):
    """A scripted server that also answers for the adapters in `adapters`, by name."""

    adapters: ClassVar[dict[str, Script]]

    def handle(self, transport: asyncio.Transport, path: str, body: bytes) -> None:
        if not hasattr(self, "base"):
            self.base = self.script
        if path == "/v1/models":
            names = [self.base.model, *self.adapters]
            listing = orjson.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]})
            scripted._respond(transport, 200, listing)
            return
        if path == "/v1/chat/completions":
            self.script = self.adapters.get(orjson.loads(body).get("model"), self.base)
        super().handle(transport, path, body)


def check_adapter(module: dict[str, str], rank: int) -> None:
    """Check an adapter's rank and files as vLLM does when it starts."""
    folder = Path(module["path"])
    extra = orjson.loads((folder / "adapter_config.json").read_bytes())["r"]
    if extra > rank:
        sys.exit(f"ValueError: LoRA rank {extra} is greater than max_lora_rank {rank}.")
    if not (folder / "adapter_model.safetensors").exists():
        sys.exit(f"ValueError: {folder} doesn't contain tensors")


def main() -> None:
    """Parse vLLM's flags, and pass the others to the scripted server."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--served-model-name", nargs="+", required=True)
    parser.add_argument("--script", default="{}")
    parser.add_argument("--learned")
    parser.add_argument("--enable-lora", action="store_true")
    parser.add_argument("--max-lora-rank", type=int, choices=RANKS, default=16)
    parser.add_argument("--lora-modules", nargs="*", type=orjson.loads, default=[])
    options, others = parser.parse_known_args()
    if options.lora_modules and not options.enable_lora:
        sys.exit("ValueError: --lora-modules without --enable-lora")
    for module in options.lora_modules:
        check_adapter(module, options.max_lora_rank)
    learned = options.learned or options.script
    first, *further = options.served_model_name
    WithAdapters.adapters = {
        name: Script.model_validate({"model": name} | orjson.loads(options.script)) for name in further
    } | {
        module["name"]: Script.model_validate({"model": module["name"]} | orjson.loads(learned))
        for module in options.lora_modules
    }
    scripted.ScriptedServer = WithAdapters
    others += ["--served-model-name", first]
    scripted.main([*others, "--script", learned if "/merged" in options.model else options.script])


if __name__ == "__main__":
    main()
