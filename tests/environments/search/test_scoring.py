import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollmill.environments.search.scoring import is_exact_match, normalized


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("The Grinder", "the grinder"),
        ("  a   barometer. ", "barometer"),
        ("7,300", "7300"),
        ("Saint Osk's Church", "saint osks church"),
        ("An apple a day", "Apple day"),
        ("SALTWICK!", "Saltwick"),
        ("-5.", "\u22125"),
        ("$1,250.50", "1250.50"),
        ("(-5)", "-5"),
        (".5", "0.5"),
        ("and/or", "andor"),
        ("U.S.", "us"),
        ("well-known", "wellknown"),
        ("50%", "50"),
    ],
)
def test_case_punctuation_articles_and_spaces_are_ignored(answer, expected):
    assert is_exact_match(answer, [expected])


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Saltwick Regis", "Saltwick"),
        ("Saltwick", "Saltwick Regis"),
        ("Saltwick or Dunmere", "Saltwick"),
        ("It is Saltwick", "Saltwick"),
        ("18", "188"),
        ("thea", "a the a"),
        ("-5", "5"),
        ("1/2", "12"),
        ("3.14", "314"),
        ("2-1", "21"),
        ("10:15", "1015"),
        ("1,2", "12"),
        ("-$5", "$5"),
        (".5", "5"),
        ("", "Saltwick"),
        ("the", "a"),
        ("...", "!"),
    ],
)
def test_part_of_or_more_than_the_answer_is_wrong(answer, expected):
    assert not is_exact_match(answer, [expected])


def test_every_accepted_answer_is_right():
    assert is_exact_match("seven arches", ["seven", "7", "Seven Arches"])
    assert not is_exact_match("seven", [])


@given(st.text())
def test_normalization_is_idempotent(text):
    once = normalized(text)
    assert once == " ".join(once.split())
    assert normalized(f"The {once}!") == normalized(once)
