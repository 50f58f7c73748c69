"""A graded problem: a repository at a commit, the files that may change, and its build, test and benchmark commands."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class GradedProblem(BaseModel):
    """One row of a dataset of performance problems, with its column names; other columns are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    instance_id: str
    problem_statement: str
    repo: str = ""
    commit_id: str = ""
    """The commit that the agent starts from; empty for the image's HEAD."""
    image_name: str
    path_in_repo: str = ""
    """The file to make faster."""
    allowed_paths: list[str] = Field(default_factory=list)
    """Patterns of the files that may be changed, added or deleted; empty for `path_in_repo` alone.

    They match the whole path from `workdir`: `*` and `?` within a name, `**` across folders, `folder/` for all in it.
    Files that the start commit's own `.gitignore` excludes are no change.
    """
    test_file: str = ""
    benchmark_file: str = ""
    workdir: str = ""
    """Folder that commands run in, the repository's root or a folder in it; empty for the image's default."""
    build_command: str = ""
    """Empty if nothing is built. Its results have to be in the work tree, from which they are copied to the sandboxes
    of the benchmark."""
    test_command: str = ""
    """Exits with 0 if all tests passed, and ends with the number of tests: its last three lines have to be those of
    the start commit, apart from times, so that ending the process early does not pass. Empty for no tests."""
    inputs_command: str = ""
    """Prints cases that are derived from $BENCH_SEED alone, one on each line (UTF-8, no empty lines, 64 MiB at most).

    It runs at the start commit, and the change never sees it. $BENCH_PART says which cases: `speed` for those that are
    measured: several sizes, about half a second of work at the start commit, with some edge cases among them; `edge`
    for many small ones, which are only compared: every behaviour that a change might break.
    """
    worker_command: str = ""
    """Answers cases on its standard input and output, with the code under test; see `sandboxes/case_answers.py`.

    For each line with a case it decodes the case and prints `ready`; after a line `go` it calls the code under test
    and prints `done`; then it prints one line with everything that came out: all results in full, errors with type and
    text, and the arguments as they are after the calls. Only between `go` and `done` its time counts, but what it needs
    longer for the rest than at the start commit is added. The lines have to be those of the start commit, byte for
    byte. Give it together with `inputs_command`; then `benchmark_command` is not used.
    """
    benchmark_command: str = ""
    """Without the two above: does the measured work once on inputs that are derived from $BENCH_SEED, and prints
    digests of the results: equal seeds give equal output for any correct implementation. Its time is measured from
    outside.

    Inputs and results are in one process with the code under test, which can find them there, so a verdict by it has
    a flag. Where there are the two commands above, it is for the agent's own use."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Time limit of each command, in seconds."""

    @model_validator(mode="after")
    def _check_case_commands(self) -> Self:
        if bool(self.inputs_command) != bool(self.worker_command):
            missing = "worker_command" if self.inputs_command else "inputs_command"
            raise ValueError(f"inputs_command and worker_command belong together: {missing} is missing")
        return self

    @property
    def by_cases(self) -> bool:
        """Whether it is measured by cases, with `inputs_command` and `worker_command`."""
        return bool(self.worker_command)

    @property
    def allowed(self) -> list[str]:
        """The effective patterns: `allowed_paths`, or else `path_in_repo`."""
        return self.allowed_paths or ([self.path_in_repo] if self.path_in_repo else [])
