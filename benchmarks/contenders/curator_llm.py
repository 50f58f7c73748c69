"""bespokelabs-curator: an `LLM` over rows; its time is that of the call."""

from __future__ import annotations

import importlib.util
import os
import time
from pathlib import Path

# curator counts tokens with tiktoken, which would fetch its vocabulary: litellm's package holds a copy.
_litellm = importlib.util.find_spec("litellm")
assert _litellm is not None
assert _litellm.origin is not None
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(_litellm.origin).parent / "litellm_core_utils/tokenizers")

from bespokelabs import curator  # noqa: E402

from benchmarks.contenders.work import MAX_TOKENS, MODEL, TEMPERATURE, TOP_P, parser, report, work_of  # noqa: E402


class Answerer(curator.LLM):
    """Asks the row's question."""

    def prompt(self, row):
        """Return the question."""
        return row["question"]

    def parse(self, row, response):
        """Return the answer beside the question."""
        return {"question": row["question"], "answer": response}


def main() -> None:
    work = work_of(parser().parse_args())
    no_limit = 10**9
    answerer = Answerer(
        model_name=MODEL,
        backend="openai",
        generation_params={"temperature": TEMPERATURE, "top_p": TOP_P, "max_tokens": MAX_TOKENS},
        backend_params={
            "base_url": work.base_url,
            "api_key": "none",
            "max_concurrent_requests": work.in_flight,
            "max_requests_per_minute": no_limit,
            "max_tokens_per_minute": no_limit,
        },
    )
    rows = [{"question": messages[0]["content"]} for messages in work.conversations]
    started = time.perf_counter()
    result = answerer(rows, working_dir=str(work.folder / "curator"))
    seconds = time.perf_counter() - started
    answers = getattr(result, "dataset", result)
    if len(answers) != work.requests:
        raise RuntimeError(f"{len(answers)} rows where {work.requests} were asked for")
    report(requests=work.requests, seconds=seconds)


if __name__ == "__main__":
    main()
