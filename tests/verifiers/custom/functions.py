"""Functions that are verifiers, and objects that are not."""

from decimal import Decimal
from functools import partial, wraps

import numpy
from unruly import Unruly

from rollmill.records import Verdict

VALUES = {
    "half": 0.5,
    "one": 1,
    "more": 2.5,
    "less": -3.0,
    "true": True,
    "false": False,
    "numpy": numpy.float32(0.5),
    "numpy_bool": numpy.bool_(True),
    "none": None,
    "text": "1.0",
    "decimal": Decimal(1),
    "nan": float("nan"),
    "infinity": float("inf"),
    "several": numpy.ones(2),
    "verdict": Verdict(verifier="somebody@9", status="unparseable", reason="no number", reward=0.0, success=False),
}


def value(problem, completion):
    return VALUES[completion]


def unruly(problem, completion):
    return Unruly().verify(problem, completion)


def pinned(problem, completion):
    return 1.0


pinned.verifier_version = "3"


def wrongly_pinned(problem, completion):
    return 1.0


wrongly_pinned.verifier_version = 3


def needs_three(problem, completion, more):
    return 1.0


async def later(problem, completion):
    return 1.0


class Called:
    def __call__(self, problem, completion):
        return True


@wraps(value)
def wrapped(*arguments):
    return value(*arguments)


partly = partial(value)
called = Called()
built_in = max
