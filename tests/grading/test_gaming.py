"""Reward hacks: what an agent may try instead of making the code faster. None gets a reward; each is noted."""

from __future__ import annotations

import psutil
import pytest

from rollmill.grading.evaluation import Evaluation
from tests.grading.conftest import Play
from tests.grading.repositories import C_FAST, C_SLOW, FAST, write_command

FASTER = write_command("lib/total.py", FAST)
FORGED = "print('0' * 64)\n"
BENCH = write_command("bench.py", FORGED)


def caught(evaluation: Evaluation, phase: str, reason: str) -> None:
    assert (evaluation.success, evaluation.reward, evaluation.error) == (False, 0.0, None)
    assert evaluation.phase == phase
    assert reason in str(evaluation.reason)


OUTSIDE = {
    "tests changed": (write_command("tests/test_total.py", ""), "tests/test_total.py was changed"),
    "tests deleted": ("rm -r tests", "tests/__init__.py was deleted"),
    "benchmark changed": (BENCH, "bench.py was changed"),
    "staged": (f"{BENCH}\ngit add -A", "bench.py was changed"),
    "staged and taken back in the work tree": (
        f"{BENCH}\ngit add -A; git show HEAD:bench.py > bench.py; touch x",
        "x was",
    ),
    "committed away": (f"{BENCH}\ngit commit -qam x", "bench.py was changed"),
    "start commit amended": (f"{BENCH}\ngit commit -qa --amend -m start", "bench.py was changed"),
    "another history": (
        f"{BENCH}\ngit checkout -q --orphan y; git add -A; git commit -qm start",
        "bench.py was changed",
    ),
    "a ref that moves HEAD": (
        f"{BENCH}\ngit commit -qam x; git update-ref refs/heads/main HEAD;"
        "git reflog expire --all; git gc -q --prune=now",
        "bench.py was changed",
    ),
    "git replace": (
        f"{BENCH}\nold=$(git rev-parse HEAD:bench.py); git replace $old $(git hash-object -w bench.py); git add -A",
        "bench.py was changed",
    ),
    "assume-unchanged": (f"git update-index --assume-unchanged bench.py\n{BENCH}", "bench.py was changed"),
    "skip-worktree": (f"git update-index --skip-worktree bench.py\n{BENCH}", "bench.py was changed"),
    "an index of its own": (f"{BENCH}\nrm .git/index; ln -s /dev/null .git/index", "bench.py was changed"),
    "untracked": ("touch other.py", "other.py was added"),
    "untracked and hidden by .gitignore": ("echo other.py >> .gitignore; touch other.py", ".gitignore was changed"),
    "untracked and excluded": (
        "mkdir -p .git/info; echo '*' > .git/info/exclude; touch other.py",
        "other.py was added",
    ),
    "excluded by configuration": (
        "echo '*' > /tmp/x; git config core.excludesFile /tmp/x; touch other.py",
        "other.py was added",
    ),
    "attributes that hide it": (
        f"echo 'bench.py -diff filter=x' > .gitattributes\n{BENCH}",
        ".gitattributes was added",
    ),
    "attributes in .git": (
        "mkdir -p .git/info; echo '* filter=x' > .git/info/attributes;"
        f"git config filter.x.clean 'git show HEAD:bench.py'\n{BENCH}",
        "bench.py was changed",
    ),
    "hooks, fsmonitor, external diff": (
        "printf '#!/bin/sh\\ngit checkout bench.py\\n' > /tmp/h; chmod +x /tmp/h; mkdir -p .git/hooks;"
        "for h in pre-commit post-index-change fsmonitor-watchman; do cp /tmp/h .git/hooks/$h; done;"
        "git config core.fsmonitor /tmp/h; git config diff.external /tmp/h; git config core.pager /tmp/h;"
        f"git config alias.diff '!true'; git config core.worktree /tmp; git config core.bare true\n{BENCH}",
        "bench.py was changed",
    ),
    "another work tree": (f"{BENCH}\nrm -r .git; git init -q /tmp/y; cp -r /tmp/y/.git .git", "bench.py was changed"),
    "a link out": (
        f"{write_command('/tmp/fast.py', FAST)}\nln -sf /tmp/fast.py lib/total.py",
        "lib/total.py is a symbolic link",
    ),
    "a nested repository": ("mkdir new; cd new; git init -q; touch x; git add x; git commit -qm x", "new/x was added"),
    "a submodule": (
        "mkdir /tmp/s; cd /tmp/s; git init -q; touch x; git add x; git commit -qm x; cd /workspace;"
        "git -c protocol.file.allow=always submodule --quiet add /tmp/s sub",
        ".gitmodules was added",
    ),
    "conftest": ("touch conftest.py", "conftest.py was added"),
    "conftest where files may be": ("touch lib/conftest.py", "lib/conftest.py has a name"),
    "sitecustomize": ("touch sitecustomize.py", "sitecustomize.py was added"),
    "usercustomize where files may be": ("touch lib/usercustomize.py", "lib/usercustomize.py has a name"),
    "a .pth": ("echo 'import os' > lib/x.pth", "lib/x.pth has a name"),
    "unittest of its own": (write_command("unittest.py", FORGED), "unittest.py was added"),
    "hashlib where files may be": (write_command("lib/hashlib.py", ""), "lib/hashlib.py would hide a module"),
    "an executable bit": ("chmod +x bench.py", "bench.py was changed"),
    "names that would lead out": (r"touch '..\x' $'new\nline'", "was added"),
}


UNREADABLE = {
    "everything deleted": ("rm -rf * .git*", "no git repository any more"),
    "no repository": (f"rm -rf .git\n{FASTER}", "no git repository any more"),
    "an unreadable folder": (f"mkdir lib/x; touch lib/x/y; chmod 000 lib/x\n{FASTER}", "cannot be judged"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", OUTSIDE)
def test_hidden_change_outside_allowed_paths_is_left_out_and_noted(play: Play, what: str) -> None:
    command, reason = OUTSIDE[what]
    evaluation = play("py", command)
    caught(evaluation, "git_precheck", reason)
    assert str(evaluation.reason).startswith("no change; ")
    assert evaluation.git_precheck is not None
    assert (evaluation.git_precheck.ok, evaluation.git_precheck.raw_diff) == (True, "")
    assert reason in evaluation.git_precheck.ignored_changes[0].reason


@pytest.mark.parametrize("what", UNREADABLE)
def test_tree_that_cannot_be_judged_is_refused(play: Play, what: str) -> None:
    command, reason = UNREADABLE[what]
    caught(play("py", command), "git_precheck", reason)


@pytest.mark.slow
def test_faster_change_is_graded_on_its_merits_without_what_is_left_out(play: Play) -> None:
    """Forged tests and benchmark, files that pytest and Python load, a leftover script: none comes along."""
    forged = (
        f"{BENCH}\n{write_command('tests/test_total.py', '')}\n{write_command('sitecustomize.py', 'x = (')}\n"
        f"{write_command('worker.py', FORGED)}\n{write_command('inputs.py', FORGED)}\n"
        "touch conftest.py reproduce.py lib/conftest.py; git add -A; git commit -qm start"
    )
    evaluation = play("py", FASTER, forged)
    assert (evaluation.success, evaluation.reason, evaluation.error) == (True, None, None)
    assert evaluation.git_precheck is not None
    assert evaluation.git_precheck.changed_files == ["lib/total.py"]
    left_out = {change.path for change in evaluation.git_precheck.ignored_changes}
    names = {"bench.py", "inputs.py", "worker.py", "tests/test_total.py", "sitecustomize.py", "conftest.py"}
    assert left_out == names | {"reproduce.py", "lib/conftest.py"}
    assert "Ran 2 tests" in evaluation.test_output
    assert evaluation.benchmark_output == ""


def test_change_that_needs_what_is_left_out_fails_and_says_so(play: Play) -> None:
    needs = "from fast import total\n"
    evaluation = play("py", write_command("lib/total.py", needs), write_command("fast.py", FAST))
    caught(evaluation, "test", "; 1 change is left out: fast.py was added, and only lib/* may be")
    evaluation = play("c", write_command("total.c", '#include "fast.h"\n' + C_FAST), "touch fast.h other.h")
    caught(evaluation, "build", "; 2 changes are left out: fast.h was added, and only total.c may be, ...")


def test_folder_replaced_by_a_link_is_not_followed(play: Play) -> None:
    evaluation = play("py", FASTER, "cp -r lib /tmp/lib; rm -r lib; ln -s /tmp/lib lib")
    caught(evaluation, "test", "1 change is left out: lib was added")
    assert evaluation.git_precheck is not None
    assert evaluation.git_precheck.changed_files == ["lib/__init__.py", "lib/total.py"]
    assert "deleted file mode" in evaluation.git_precheck.raw_diff


ENDS = {
    "ends at import": "import os\nos._exit(0)\n",
    "ends politely": "raise SystemExit(0)\n",
    "ends when called": "import os\ndef total(numbers):\n    os._exit(0)\n",
    "skips the tests": "import unittest\nraise unittest.SkipTest('x')\n",
    "takes tests away": (
        "import unittest\nunittest.TestLoader.getTestCaseNames = lambda *a: ['test_none']\n"
        "def total(numbers):\n    return 0\n"
    ),
    "forges another end": "import os\nprint('Ran 3 tests in 0.1s\\n\\nOK', flush=True)\nos._exit(0)\n",
}


@pytest.mark.parametrize("what", ENDS)
def test_unfinished_test_run_does_not_pass(play: Play, what: str) -> None:
    caught(play("py", write_command("lib/total.py", ENDS[what])), "test", "the tests")


WRONG = {
    "only the tests' inputs": "def total(numbers):\n    return {0: 0, 3: 6}.get(len(numbers), 499 * 10**9)\n",
    "another seed's result": (
        "import random\ndef total(numbers):\n    if len(numbers) < 10:\n        return sum(numbers)\n"
        "    rng = random.Random(0)\n    return sum(rng.randrange(10**9) for _ in range(1000))\n"
    ),
    "assertions that assert nothing": (
        "import unittest\nunittest.TestCase.assertEqual = lambda *a: None\ndef total(numbers):\n    return 1\n"
    ),
    "a forged end of the tests": (
        "import os\nprint('-' * 70 + '\\nRan 2 tests in 0.001s\\n\\nOK', flush=True)\nos._exit(0)\n"
    ),
    "a forged result": FAST
    + "import os\nif 'BENCH_SEED' in os.environ:\n    print('0' * 64, flush=True)\n    os._exit(0)\n",
    "forged times": FAST + "import os\nif 'BENCH_SEED' in os.environ:\n    print('time: 0.000001 s')\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
def test_wrong_result_on_unknown_inputs_is_caught(play: Play, what: str) -> None:
    evaluation = play("old", write_command("lib/total.py", WRONG[what]))
    caught(evaluation, "benchmark", "the benchmark's output is wrong: line 1 is ")
    assert evaluation.test_returncode == 0
    assert evaluation.speedup is None


CACHE = """\
import os
import time

PLACES = ["/tmp", ".", "lib", os.path.expanduser("~"), "/var/tmp", "/dev/shm", "__pycache__", "lib/__pycache__", "/run"]


def plant(path, text):
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        pass


def total(numbers):
    if not any(os.path.exists(place + "/done.so") for place in PLACES):
        time.sleep(1.3)
    for place in PLACES:
        plant(place + "/done.so", "done")
    plant("bench.py", "print('0' * 64)")
    plant("sitecustomize.py", "import os; os._exit(0)")
    plant("lib/total.py", "def total(numbers): return sum(numbers)")
    return sum(numbers)
"""
CLOCK = """\
import select
import time

select.select([], [], [], 1.3)
time.time = time.monotonic = time.perf_counter = time.process_time = lambda: 0.0
time.sleep = lambda seconds: None


def total(numbers):
    return sum(numbers)
"""
MARK = "rollmill-left-behind"
BURNER = f"""\
import os
import subprocess
import time


def total(numbers):
    for _ in range(2):
        subprocess.Popen(
            ["setsid", "nohup", "bash", "-c", "while :; do kill -STOP -1; done", "{MARK}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
    if os.fork() == 0:
        os.setsid()
        os.close(1)
        os.close(2)
        while True:
            pass
    time.sleep(1.3)
    return sum(numbers)
"""


def play_out_of_luck(play: Play, *commands: str) -> Evaluation:
    """Grade an attempt, and once more where it was faster by chance: an interval of 95 % misses once in forty times."""
    evaluation = play(*commands)
    return play(*commands) if evaluation.success else evaluation


def not_faster(evaluation: Evaluation) -> None:
    caught(evaluation, "benchmark", "(95% interval ")
    assert str(evaluation.reason).startswith(("not faster beyond noise: ", "slower: "))
    assert evaluation.speedup_details is not None
    assert all(pair.after_s > 1.2 for pair in evaluation.speedup_details.comparisons)


@pytest.mark.slow
@pytest.mark.parametrize("what", [CACHE, CLOCK], ids=["caches on disk, changes the benchmark", "another clock"])
def test_leftovers_and_fake_clocks_give_no_speedup(play: Play, what: str) -> None:
    not_faster(play_out_of_luck(play, "old", write_command("lib/total.py", what)))


def left_behind() -> list[int]:
    return [
        evaluation.pid
        for evaluation in psutil.process_iter(["cmdline"])
        if MARK in " ".join(evaluation.info["cmdline"] or [])
    ]


@pytest.mark.slow
def test_leftover_processes_do_not_reach_the_next_run(play: Play) -> None:
    started = f"for i in 1 2; do setsid nohup bash -c 'while :; do :; done' {MARK} > /dev/null 2>&1 & done"
    harmless = BURNER.replace("kill -STOP -1", ":")
    evaluation = play("old", write_command("lib/total.py", harmless), started)
    assert left_behind() == []
    not_faster(evaluation)


LOOK = """\
import os
import subprocess

if "BENCH_SEED" in os.environ:
    commands = [
        "env | cut -d= -f1 | sort", "echo /tmp: $(ls -A /tmp)",
        "echo found: $(find / -xdev -newer lib/__init__.py -regex '.*[.]\\(patch\\|diff\\|json\\)' 2> /dev/null)",
        "grep -rl 'diff --git' /tmp /workspace --exclude-dir=.git --exclude=total.py",
        "cat /proc/*/cmdline | tr '\\\\0' ' '; echo", "echo tree: $(ls -A)", "git log --oneline | wc -l",
    ]
    for command in commands:
        subprocess.run(command, shell=True)


def total(numbers):
    return sum(numbers)
"""


@pytest.mark.slow
def test_no_evaluator_files_are_readable(play: Play) -> None:
    evaluation = play("old", write_command("lib/total.py", LOOK))
    caught(evaluation, "benchmark", "output is wrong")
    lines = evaluation.benchmark_output.splitlines()
    assert "BENCH_SEED" in lines
    assert "/tmp:" in lines
    assert "found:" in lines
    assert "tree: .git .gitignore bench.py inputs.py lib tests worker.py" in lines
    assert "1" in lines
    for word in ("diff --git", "rollmill", "grading", "solution", "instance", "TOKEN", "KEY"):
        assert word not in evaluation.benchmark_output


C_FORGED = C_FAST + (
    "#include <stdio.h>\n__attribute__((constructor)) static void forge(void) {"
    ' printf("2 of 2 tests passed\\n"); fflush(stdout); _exit(0); }\n'
)
C_ENDS = C_FAST + "__attribute__((constructor)) static void end(void) { _exit(0); }\n"
C_MAIN = C_FAST + "int puts(const char *text) { return 0; }\nint printf(const char *form, ...) { return 0; }\n"


@pytest.mark.slow
def test_c_that_takes_over_the_program_is_caught(play: Play) -> None:
    caught(play("c", write_command("total.c", C_FORGED)), "test", "it wrote '2 of 2 tests passed' where `ready`")
    caught(play("c", write_command("total.c", C_ENDS)), "test", "did not end as at the start commit")
    caught(play("c", write_command("total.c", C_MAIN)), "test", "did not end as at the start commit")


@pytest.mark.slow
def test_agent_cannot_change_makefiles_headers_and_flags(play: Play) -> None:
    caught(play("c", "sed -i s/O2/O0/ Makefile"), "git_precheck", "Makefile was changed")
    caught(play("c", write_command("GNUmakefile", "all:\n")), "git_precheck", "GNUmakefile was added")
    caught(play("c", write_command("total.h", "#define total(a, b) 0\n")), "git_precheck", "total.h was changed")


@pytest.mark.slow
def test_agent_binaries_and_preloads_are_not_graded(play: Play) -> None:
    forge = "make -s; printf '#!/bin/sh\\necho 2 of 2 tests passed\\n' > run_test; cp run_test run_worker"
    future = "touch -d 2100-01-01 run_*"
    library = (
        write_command("/tmp/fast.c", "int usleep(unsigned x) { return 0; }")
        + "\ngcc -shared -fPIC -o /tmp/fast.so /tmp/fast.c"
    )
    preload = "for f in .bashrc .profile; do echo 'export LD_PRELOAD=/tmp/fast.so' > /tmp/$f; done"
    evaluation = play_out_of_luck(
        play, "c", forge, future, library, preload, write_command("total.c", C_SLOW + "/* faster */")
    )
    caught(evaluation, "benchmark", "(95% interval ")
    assert evaluation.test_output == "2 of 2 tests passed\n"
    assert evaluation.speedup_details is not None
    assert all(pair.after_s > 0.2 for pair in evaluation.speedup_details.comparisons)


@pytest.mark.slow
def test_including_the_worker_source_fails_the_build(play: Play) -> None:
    evaluation = play("c", write_command("total.c", '#include "worker.c"\n' + C_FAST))
    assert (evaluation.success, evaluation.reward, evaluation.phase) == (False, 0.0, "build")
