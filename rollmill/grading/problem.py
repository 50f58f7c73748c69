"""What is graded: a repository at a commit, what may be changed in it, and how it is built, tested and measured."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class GradedProblem(BaseModel):
    """One row of a dataset of performance problems, by the names that such files have; other columns are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")

    instance_id: str
    problem_statement: str
    repo: str = ""
    commit_id: str = ""
    """The commit that the agent starts from; empty where the image's HEAD is it."""
    image_name: str
    path_in_repo: str = ""
    """The file to make faster."""
    allowed_paths: list[str] = Field(default_factory=list)
    """Patterns of the files that may be changed, added or deleted; empty for `path_in_repo` alone.

    They fit the whole path from `workdir`: `*` and `?` within a name, `**` across folders, `folder/` for all in it.
    Files that the start commit's own `.gitignore` excludes are no change.
    """
    test_file: str = ""
    benchmark_file: str = ""
    workdir: str = ""
    """Where commands run inside the sandbox, the repository's root or a folder in it; empty for the image's own."""
    build_command: str = ""
    """Empty where nothing is built. What it makes has to be in the work tree: it is carried from there to the sandboxes
    of the benchmark."""
    test_command: str = ""
    """Ends with 0 where all tests passed, and says at its end how many there were: its last three lines have to be
    those of the start commit, times aside, so that ending the process early does not pass. Empty for no tests."""
    benchmark_command: str = ""
    """Does the measured work once on inputs that follow from $BENCH_SEED, and prints digests of what came out: equal
    seeds give equal output, whoever computes it. Its time is taken from outside.

    Tests run in one process with the code that they test, which can deceive them; this output cannot be had without
    the right results. So edge cases belong into its inputs, too."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Of each of the three commands."""

    @property
    def allowed(self) -> list[str]:
        """The patterns that count."""
        return self.allowed_paths or ([self.path_in_repo] if self.path_in_repo else [])
