"""Checks of the text of a `--where` expression before Polars parses it.

Allowed are comparisons and some functions over columns; no queries, no files, and no unlimited size. Polars' SQL has
functions that read files (`IN (SELECT ... FROM read_csv('/etc/passwd'))`) or make texts of any length (`LPAD`, nested
`REPLACE`), and its parser overflows the stack, which ends the process, for a few thousand operators.
"""

from __future__ import annotations

import re
from itertools import pairwise

LONGEST = 4000
"""Most characters of an expression."""
MOST_OPERATORS = 200
"""Most operators and brackets of an expression."""
_FUNCTION_NAMES = """
    abs avg cast ceil ceiling coalesce concat count date_part ends_with extract first floor greatest if ifnull initcap
    last least left length ln log log10 log2 lower max mean median min mod nullif octet_length pow power
    quantile_cont quantile_disc regexp_like replace right round sign sqrt starts_with stddev stdev strpos substr
    substring sum trim try_cast upper variance
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_WORDS = frozenset(("and", "or", "not", "in", "like", "ilike", "between", "is", "when", "then", "else", "case", "over",
                    "by", "any", "all", "array", "rlike", "regexp"))  # fmt: skip
"""Keywords that may precede a bracket without being a function."""
_REFUSED = frozenset(("select", "with", "table", "values", "union", "exists"))
_TOKEN = re.compile(r"'(?:[^']|'')*+'|\"[^\"]*+\"|`[^`]*+`|[^\W\d]\w*+|\d[\w.]*+|\s++|.", re.DOTALL)


def fault(expression: str) -> str | None:
    """Return the reason that an expression is refused; None where it may be parsed."""
    if len(expression) > LONGEST:
        return f"it has {len(expression):,} characters, at most {LONGEST:,} are read"
    tokens = [token for token in _TOKEN.findall(expression) if not token.isspace()]
    if sum(not (token[0].isalnum() or token[0] in "_'\"`,.") for token in tokens) > MOST_OPERATORS:
        return f"it has more than {MOST_OPERATORS} operators"
    words = [token.lower() for token in tokens if token[0].isalpha() or token[0] == "_"]
    if sum(word in _WORDS for word in words) > MOST_OPERATORS:
        return f"it has more than {MOST_OPERATORS} operators"
    if refused := sorted(_REFUSED.intersection(words)):
        return f"{refused[0].upper()} is for queries: compare columns and values"
    return _mark_fault(expression, tokens) or _call_fault(tokens)


def _mark_fault(expression: str, tokens: list[str]) -> str | None:
    for before, token in zip(["", *tokens], tokens, strict=False):
        if token in ("'", '"', "`", "$", "\\", ";", "#"):
            return f"{token} stands alone in it"
        if token[0] == "'" and re.fullmatch(r"\w*[^\W\d]|&", before) and f"{before}'" in expression:
            return f"a text is written in quotes alone, without {before} before them"
        if before + token in ("--", "/*"):
            return "comments are not read"
    return None


def _call_fault(tokens: list[str]) -> str | None:
    for name, mark in pairwise(tokens):
        is_name = name[0] in "\"`'_" or name[0].isalpha()
        if mark == "(" and is_name and name.lower() not in FUNCTIONS | _WORDS:
            return f"there is no function {name}: there are {', '.join(sorted(FUNCTIONS))}"
    positions = [position for position, token in enumerate(tokens) if token.lower() == "replace"]
    if any(_grows(tokens[position + 1 :]) for position in positions):
        return "REPLACE puts in a text in quotes, no longer than the one that it takes out"
    return None


def _grows(tokens: list[str]) -> bool:
    """Return whether a REPLACE may make a text longer: ten of them, nested, would exceed any memory.

    `tokens` are those after its name.
    """
    depth = 0
    for index, mark in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(mark, 0)
        if depth <= 0:
            between, old, and_then, new = ["", "", "", "", *tokens[:index]][-4:]
            texts = between == and_then == "," and old[:1] == new[:1] == "'"
            return not texts or len(_unquoted(new)) > len(_unquoted(old))
    return True


def _unquoted(text: str) -> str:
    return text[1:-1].replace("''", "'")
