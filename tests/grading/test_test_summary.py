from __future__ import annotations

from rollmill.grading.test_summary import summary


def test_test_summary_does_not_depend_on_duration() -> None:
    first = "..\n" + "-" * 70 + "\nRan 12 tests in 0.001s\n\nOK\n"
    second = "..\nwarning: x\n" + "-" * 70 + "\nRan 12 tests in 13.250s\n\nOK\n\n"
    assert summary(first) == summary(second) == ["-" * 70, "Ran 12 tests in #", "OK"]


def test_fewer_tests_change_the_summary() -> None:
    assert summary("Ran 12 tests in 1s\nOK") != summary("Ran 11 tests in 1s\nOK")
    assert summary("== 12 passed in 0.12s ==") == ["== 12 passed in # =="]
    assert summary("[==========] 5 tests ran. (12 ms total)") == ["[==========] 5 tests ran. (# total)"]
    assert summary("") == []
    assert summary("\n \n") == []
