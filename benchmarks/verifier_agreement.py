r"""Measures the agreement of verifiers with human labels of completions.

The built-in verifiers, math-verify as in its README, and two common regular expressions (the last number, the last
`\boxed{}`) judge the rows of `benchmarks/verifier_cases` that each is for. A problem that a verifier refuses counts as
refused completions. The last table is GSM8K's form with each of three verifiers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from benchmarks.machine import machine
from benchmarks.table import show
from benchmarks.targets import Targets, arguments
from rollmill.records import Problem
from rollmill.verifiers import VERIFIERS, VerifierFailed, VerifierPool, make_verifier, problem_fault

CASES = Path(__file__).parent / "verifier_cases"
LEAST_AGREEMENT = 0.99
PLAIN = "benchmarks.contenders.plain_answers"
JUDGES = {
    "numeric": ("numeric", "numeric"),
    "exact": ("exact", "exact"),
    "math": ("math", "math"),
    "choice": ("choice", "choice"),
    "math-verify": (f"{PLAIN}:math_verify", "math"),
    "last number": (f"{PLAIN}:last_number", "numeric"),
    "last boxed": (f"{PLAIN}:last_boxed", "math"),
}
"""By a judge's name: its verifier, and the verifier whose rows it gets."""
GIVEN_FORMS = ("given", "gsm8k, given")
GSM8K = ("numeric", "exact", "math")


class Case(NamedTuple):
    """One labelled completion."""

    form: str
    verifiers: Sequence[str]
    problem: Problem
    completion: str
    right: bool
    why: str


class Judged(NamedTuple):
    """A case with a judge's verdict."""

    case: Case
    right: bool
    reason: str


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--show", action="store_true", help="list every disagreement")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each Nth row, for a quick look")
    parser.add_argument("--only", nargs="+", choices=JUDGES, default=None, help="these judges")
    parser.add_argument("--workers", type=int, default=2, help="processes of each judge")
    parser.add_argument("--limit_s", type=float, default=10.0, help="time limit of one verdict")
    options = parser.parse_args()
    where = machine()
    cases = load_cases()[:: options.every]
    names = [name for name in options.only or JUDGES if name != "choice" or "choice" in VERIFIERS]
    judged = {name: asyncio.run(judge(name, cases, options.workers, options.limit_s)) for name in names}
    show(f"verdicts beside a person's, on {where}", list(agreement_rows(judged)))
    show("all forms", [summary(name, rows, "all") for name, rows in judged.items() if rows])
    if given_rows := [given_row(name, rows) for name, rows in judged.items() if name in GSM8K]:
        show("the form of GSM8K, the given rows", given_rows)
    if options.show:
        for name, rows in judged.items():
            for row in disagreements(rows):
                print(described(name, row))
    check(judged, check=options.check)


def load_cases() -> list[Case]:
    """Return all labelled completions, the given ones first."""
    cases = [_case(row, number) for number, row in enumerate(_rows("given.jsonl"))]
    cases += [_given_gsm8k(row, number) for number, row in enumerate(_rows("gsm8k_given.jsonl"))]
    return cases + [_case(row, number) for number, row in enumerate(_rows("labelled.jsonl"))]


def _rows(name: str) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in (CASES / name).read_bytes().splitlines()]


def _case(row: dict[str, Any], number: int) -> Case:
    fields = {"choices": row["choices"]} if "choices" in row else {}
    problem = Problem(
        instance_id=f"{row['form']}-{number}",
        prompt=row.get("question", "?"),
        answer=str(row["truth"]),
        fields=fields,
    )
    right = row["want"] == "right"
    return Case(row["form"], row["verifiers"], problem, row["completion"], right, row["why"])


def _given_gsm8k(row: dict[str, Any], number: int) -> Case:
    problem = Problem(instance_id=f"gsm8k-given-{number}", prompt=row["question"], answer=row["answer"])
    return Case(GIVEN_FORMS[1], GSM8K, problem, row["completion"], row["want"] == "right", "")


async def judge(name: str, cases: Sequence[Case], workers: int, limit_s: float) -> list[Judged]:
    """Return a judge's verdicts on the rows that it is for.

    Args:
        name: The judge's, of `JUDGES`.
        cases: All labelled completions.
        workers: Processes.
        limit_s: Time limit of one verdict, in seconds.
    """
    spec, kind = JUDGES[name]
    verifier = make_verifier(spec)
    selected = [case for case in cases if kind in case.verifiers]
    async with VerifierPool(spec, accept_error=0.0, workers=workers, time_limit_s=limit_s) as pool:

        async def verdict(case: Case) -> Judged:
            if fault := problem_fault(verifier, case.problem):
                return Judged(case, right=False, reason=f"the problem is refused: {fault}")
            try:
                seen = await pool.verify(case.problem, case.completion)
            except VerifierFailed as error:
                return Judged(case, right=False, reason=str(error))
            return Judged(case, seen.success, seen.reason or f"read {seen.answer!r}")

        return list(await asyncio.gather(*map(verdict, selected)))


def agreement_rows(judged: dict[str, list[Judged]]) -> Iterable[dict[str, str]]:
    """Yield a line for each form and judge."""
    forms = dict.fromkeys(row.case.form for rows in judged.values() for row in rows)
    for form in forms:
        for name, rows in judged.items():
            if of_form := [row for row in rows if row.case.form == form]:
                yield summary(name, of_form, form)


def summary(name: str, rows: Sequence[Judged], form: str) -> dict[str, str]:
    agreed = sum(row.right == row.case.right for row in rows)
    return {
        "form, judge": f"{form}, {name}",
        "rows": str(len(rows)),
        "agreement": f"{agreed / len(rows):.3f}",
        "false accepts": f"{false_accepts(rows)} of {sum(not row.case.right for row in rows)}",
        "false refusals": f"{false_refusals(rows)} of {sum(row.case.right for row in rows)}",
    }


def given_row(name: str, rows: Sequence[Judged]) -> dict[str, str]:
    gsm8k_rows = [row for row in rows if row.case.form == GIVEN_FORMS[1]]
    return {
        "verifier": name,
        "right by hand": f"{sum(row.case.right for row in gsm8k_rows)} of {len(gsm8k_rows)}",
        "counted right": str(sum(row.right for row in gsm8k_rows)),
        "wrong but accepted": str(false_accepts(gsm8k_rows)),
    }


def false_accepts(rows: Iterable[Judged]) -> int:
    return sum(row.right and not row.case.right for row in rows)


def false_refusals(rows: Iterable[Judged]) -> int:
    return sum(row.case.right and not row.right for row in rows)


def disagreements(rows: Iterable[Judged]) -> list[Judged]:
    return [row for row in rows if row.right != row.case.right]


def described(name: str, row: Judged) -> str:
    label = "should be right" if row.case.right else "should not be right"
    truth = row.case.problem.answer
    return f"{name}, {row.case.form}: {label} for {truth!r}: {row.case.completion!r} ({row.reason}) {row.case.why}"


def check(judged: dict[str, list[Judged]], *, check: bool) -> None:
    """Compare `numeric` and `math` with their targets."""
    targets = Targets()
    for name in ("numeric", "math"):
        if rows := judged.get(name):
            agreed = 1 - len(disagreements(rows)) / len(rows)
            targets.at_least(f"{name}, agreement", agreed, LEAST_AGREEMENT)
            given_rows = [row for row in rows if row.case.form in GIVEN_FORMS]
            targets.at_most(f"{name}, false accepts among the given", false_accepts(given_rows), 0)
    targets.end(check=check)


if __name__ == "__main__":
    main()
