"""distilabel: a pipeline of one text generation step; its time is that of `Pipeline.run`, start included."""

from __future__ import annotations

import time

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration

from benchmarks.contenders.work import MAX_TOKENS, MODEL, TEMPERATURE, TOP_P, parser, report, work_of


def main() -> None:
    work = work_of(parser().parse_args())
    rows = [{"instruction": messages[0]["content"]} for messages in work.conversations]
    sampling = {"temperature": TEMPERATURE, "top_p": TOP_P, "max_new_tokens": MAX_TOKENS}
    with Pipeline(name="benchmark", cache_dir=work.folder / "distilabel") as pipeline:
        load = LoadDataFromDicts(data=rows, batch_size=work.in_flight)
        model = OpenAILLM(model=MODEL, base_url=work.base_url, api_key="none", generation_kwargs=sampling)
        load >> TextGeneration(llm=model, input_batch_size=work.in_flight, use_cache=False)
    started = time.perf_counter()
    result = pipeline.run(use_cache=False)["default"]["train"]
    seconds = time.perf_counter() - started
    if len(result) != work.requests or not all(result["generation"]):
        raise RuntimeError(f"{len(result)} rows, some without a completion, where {work.requests} were asked for")
    report(requests=work.requests, seconds=seconds)


if __name__ == "__main__":
    main()
