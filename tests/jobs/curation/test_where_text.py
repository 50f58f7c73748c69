import subprocess
import sys

import polars as pl
import pytest

from rollmill.corpus.table import SCHEMA
from rollmill.errors import InputError
from rollmill.jobs.curation.rules import apply, where
from rollmill.jobs.curation.where_text import fault

USED = [
    "reward > 0.5 AND turns <= 10",
    "(reward >= AVG(reward)) OR NOT (empty)",
    "exit_status IN ('a', 'it''s', 'SELECT ; -- (')",
    "instance_id LIKE '%x%' OR REGEXP_LIKE(instance_id, '^a+$')",
    "ROUND(latency_s, 1) BETWEEN 1 AND 2.5e1",
    "CASE WHEN reward IS NULL THEN FALSE ELSE (turns = -1) END",
    "COALESCE(reward, 0) IS DISTINCT FROM 1",
    "CAST(turns AS DOUBLE) / 2 = 1",
    "LOWER(\"exit_status\") = 'submitted'",
    "REPLACE(REPLACE(exit_status, '_', ''), 'it''s', 'is') = 'submitted'",
    "EXTRACT(year FROM DATE '2020-01-01') = 2020",
]
FILES = [
    "success IN (SELECT success FROM read_csv('{}'))",
    "success = (SELECT 1 FROM read_csv('{}'))",
    "EXISTS (SELECT * FROM read_csv('{}'))",
    "success IN (WITH a AS (SELECT * FROM read_csv('{}')) SELECT 1 FROM a)",
    "success IN (TABLE read_csv('{}'))",
    "read_csv('{}') = 1",
    "\"read_csv\"('{}') = 1",
    "`read_csv`('{}') = 1",
    "success IN (FROM read_csv('{}'))",
    "read_csv /**/ ('{}') = 1",
    "read_csv --\n('{}') = 1",
    "instance_id = E'\\' OR read_csv(\\'{}\\') = 1 OR '",
    "instance_id = $$'$$ OR read_csv('{}') = 1",
    "instance_id = ' OR read_csv('{}') = 1",
]
LARGE = [
    "LPAD(instance_id, 10000000000, 'x') = 'x'",
    "REPEAT(instance_id, 10000000000) = 'x'",
    "reward + " * 20_000 + "1 > 0",
    "1+" * 1999 + "1 > 0",
    "success OR " * 300 + "success",
    "NOT " * 900 + "success",
    "(" * 1900 + "success" + ")" * 1900,
    "reward + " * 250 + "1 > 0",
    "-" * 300 + "1 > 0",
    "CASE WHEN success THEN " * 250 + "success",
    "REPLACE(" * 10 + "instance_id" + ", '', 'aaaaaaaaaaaaaaaa')" * 10 + " = 'x'",
    "REPLACE(REPLACE(instance_id, 'a', 'bb'), 'b', 'aa') = 'x'",
    "REPLACE(instance_id, '', instance_id) = 'x'",
    "REPLACE(instance_id, 'ab', concat('a', instance_id)) = 'x'",
    "replace (instance_id, lower('ABC'), 'abc') = 'x'",
    "REPLACE(instance_id, '''', 'aa') = 'x'",
    "system('touch pwned') = 1",
]
PARSE = "import sys; from rollmill.jobs.curation.rules import where; [where(text) for text in sys.argv[1:]]"


@pytest.mark.parametrize("expression", USED)
def test_comparisons_are_allowed(expression):
    assert where(expression).description == f"where {expression}"


@pytest.mark.parametrize("expression", FILES)
def test_no_file_is_read(tmp_path, expression):
    file = tmp_path / "secret.csv"
    file.write_text("success,top-secret\ntrue,top-secret\n")
    with pytest.raises(InputError) as refused:
        where(expression.format(file))
    assert "top-secret" not in str(refused.value)
    assert fault(expression.format(file)) is not None


@pytest.mark.parametrize("expression", LARGE)
def test_unbounded_expression_is_refused_before_parsing(expression):
    with pytest.raises(InputError) as refused:
        where(expression)
    assert len(str(refused.value)) < 1000


def test_largest_allowed_expression_is_parsed():
    taken = [
        "1+" * 199 + "1 > 0",
        "reward + " * 198 + "1 > 0",
        "NOT " * 200 + "success",
        "success OR " * 199 + "success",
    ]
    assert [fault(expression) for expression in taken] == [None] * 4
    done = subprocess.run([sys.executable, "-c", PARSE, taken[0], taken[1], taken[3]], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    with pytest.raises(InputError):  # sqlparser's own bound
        where(taken[2])


def test_a_panic_of_polars_is_one_line():
    row = dict.fromkeys(SCHEMA) | {"turns": 1}
    rule = where("CAST(CAST(turns * 2147483647 AS DATE) AS STRING) = 'x'")
    with pytest.raises(InputError, match="cannot be worked out for every rollout") as refused:
        apply(pl.DataFrame([row], schema=SCHEMA), [rule])
    assert "\n" not in str(refused.value)
