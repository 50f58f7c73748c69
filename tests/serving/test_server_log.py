import pytest

from rollmill.serving.server_log import ServerLog

QUOTED = """\
  File "worker.py", line 12, in start
    raise RuntimeError(
RuntimeError: this CPU cannot be bound
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above.
"""


@pytest.mark.parametrize(
    ("log", "why"),
    [
        (QUOTED, ": RuntimeError: this CPU cannot be bound"),
        ("    raise SomeError(\nand no more\n", ": raise SomeError("),
        ("api_server.py: error: unrecognized arguments: --x\n", ": api_server.py: error: unrecognized arguments: --x"),
        ("Loading\nERROR: killed\n", ""),
    ],
)
def test_the_most_telling_line_of_a_log_is_the_last_error_that_says_what_it_is(tmp_path, log, why):
    path = tmp_path / "vllm.log"
    path.write_text("RuntimeError: of the server before\n")
    there = ServerLog(path)
    with path.open("a") as file:
        file.write(log)
    assert str(there.death(1, "while starting")) == f"the server ended with code 1 while starting{why} (log: {path})"
