"""The second of the three files of a new generating job: a `GenerationJob` of single completions, each accepted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rollmill.files.atomic import atomic_write
from rollmill.files.rows import dump_line
from rollmill.generation.chat import ChatRollouts
from rollmill.generation.identity import Identity
from rollmill.generation.job import GenerationJob
from rollmill.generation.outcome import JobOutcome
from rollmill.generation.progress import Progress
from rollmill.generation.run import Run
from rollmill.generation.services import GeneratorContext
from rollmill.inference.backend import ServedModel
from rollmill.inference.client import ChatClient
from rollmill.inference.endpoints import EndpointPool
from rollmill.problems import LoadedProblems, Prompting, load_problems
from rollmill.verifiers import VerifierPool
from tests.flows.new_job.parameters import Paraphrase

PROMPTING = Prompting(template="Say this in other words: {prompt}")


class ParaphraseOutcome(JobOutcome):
    title: ClassVar[str] = "Paraphrases"
    artifact_key: ClassVar[str] = "paraphrase"

    @property
    def files(self) -> dict[str, Path]:
        names = {"paraphrases": "paraphrases.jsonl", "statistics": "statistics.txt", "picture": "picture.png"}
        return {what: self.directory / name for what, name in names.items()}

    def headline(self) -> str:
        return f"{self.table[0]['paraphrases']} paraphrases"


@dataclass(frozen=True)
class ParaphraseJob(GenerationJob[ParaphraseOutcome]):
    kind: ClassVar[str] = "paraphrase"
    recipe_version: ClassVar[int] = 1

    parameters: Paraphrase

    @property
    def directory(self) -> Path:
        return self.parameters.directory.absolute()

    @property
    def slots(self) -> int:
        return self.parameters.concurrency

    def load_problems(self, folder: Path, quarantine: Path) -> LoadedProblems:
        assert self.parameters.source is not None
        source = self.parameters.source.model_copy(update={"answer_field": ""})
        return load_problems(source, folder, quarantine_path=quarantine)

    def identity(self, loaded: LoadedProblems) -> Identity:
        sampling = self.parameters.sampling_of(self.parameters.model).model_dump()
        return Identity(
            generation={"model": self.parameters.model, "problems": loaded.sha256, "sampling": sampling},
            verification={},
        )

    def expected_rollouts(self, loaded: LoadedProblems) -> int:
        return loaded.count * self.parameters.num_rollout

    @contextmanager
    def open_generator(self, context: GeneratorContext) -> Iterator[ChatRollouts]:
        model = ServedModel(self.parameters.model, "paraphrase", Path("vllm.log"))
        with context.serve(self.parameters, model) as servers:
            yield ChatRollouts(
                ChatClient(EndpointPool(servers.endpoints), servers.client),
                VerifierPool("exact", accept_error=1.0),
                model=servers.model,
                sampling=self.parameters.sampling_of(self.parameters.model),
                prompting=PROMPTING,
            )

    def report(self, run: Run, progress: Progress) -> ParaphraseOutcome:
        count = 0
        outcome = ParaphraseOutcome(
            name=self.name, directory=run.directory, made=progress.tally.done, table=[], notes=[]
        )
        with atomic_write(outcome.files["paraphrases"]) as file:
            for problem, rollouts in run.groups():
                texts = [rollout.completion for rollout in rollouts if rollout is not None]
                count += len(texts)
                file.write(dump_line({"instance_id": problem.instance_id, "paraphrases": texts}))
        outcome.files["statistics"].write_text(f"{count}\n")
        outcome.files["picture"].write_bytes(b"")
        run.finish({"paraphrases": count})
        return outcome.model_copy(update={"table": [{"paraphrases": str(count)}]})


def jobs(parameters: Paraphrase) -> list[ParaphraseJob]:
    return [ParaphraseJob(parameters)]
