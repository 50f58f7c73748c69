"""The name of a command that runs a module, in the place of the module's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rollmill.terminal.program import name_program, program_name, renamed_calls


@pytest.fixture(autouse=True)
def unnamed() -> Iterator[None]:
    yield
    name_program("", "")


def test_module_keeps_its_own_name() -> None:
    assert program_name("reject_sampling") == "reject_sampling"
    assert renamed_calls("python -m flows.reject_sampling --help") == "python -m flows.reject_sampling --help"


@pytest.mark.parametrize(
    ("name", "module", "prog", "expected"),
    [
        ("rollmill sample", "flows.reject_sampling", "reject_sampling", "rollmill sample"),
        ("rollmill curate", "flows.curate", "curate analyze", "rollmill curate analyze"),
        ("rollmill curate", "flows.curate", "rollmill curate analyze", "rollmill curate analyze"),
        ("rollmill curate", "flows.curate", "curated", "curated"),
        ("rollmill", "deployments.local", "python -m deployments.local up", "rollmill up"),
        ("rollmill services sandbox", "rollmill.services.sandbox", "python -m rollmill.services.sandbox",
         "rollmill services sandbox"),
    ],
)  # fmt: skip
def test_command_name_replaces_the_modules(name: str, module: str, prog: str, expected: str) -> None:
    name_program(name, module)
    assert program_name(prog) == expected


def test_examples_call_the_command() -> None:
    name_program("rollmill sample", "flows.reject_sampling")
    assert renamed_calls("A=1 python -m flows.reject_sampling --x\n") == "A=1 rollmill sample --x\n"
