"""A graded problem: a repository at a commit, the files that may change, and its build, test and benchmark commands."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
    benchmark_command: str = ""
    """Does the measured work once on inputs that are derived from $BENCH_SEED, and prints digests of the results: equal
    seeds give equal output for any correct implementation. Its time is measured from outside.

    Tests run in one process with the code under test, which can deceive them; this output cannot be produced without
    correct results. So its inputs should include edge cases, too."""
    timeout_s: float = Field(default=300.0, gt=0)
    """Time limit of each of the three commands, in seconds."""

    @property
    def allowed(self) -> list[str]:
        """The effective patterns: `allowed_paths`, or else `path_in_repo`."""
        return self.allowed_paths or ([self.path_in_repo] if self.path_in_repo else [])
