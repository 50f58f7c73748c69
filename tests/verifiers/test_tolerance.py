from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from rollmill.verifiers.tolerance import is_accepted

decimals = st.decimals(-1000000, 1000000, places=4)


def test_error_equal_to_the_tolerance_is_accepted():
    assert is_accepted(abs(3.4 - 3.3), 0.1, 3.4)
    assert not is_accepted(abs(3.41 - 3.3), 0.1, 3.41)


def test_zero_tolerance_requires_the_same_number():
    assert is_accepted(0.0, 0.0, 3.3)
    assert not is_accepted(abs(0.1 + 0.2 - 0.3), 0.0, 0.3)


@given(decimals, decimals, st.decimals("0.0001", 1000, places=4))
def test_is_accepted_agrees_with_exact_decimals(a, b, limit):
    exact = abs(Decimal(a) - Decimal(b)) <= Decimal(limit)
    assert is_accepted(abs(float(a) - float(b)), float(limit), max(abs(float(a)), abs(float(b)))) == exact
    edge = b + limit
    assert is_accepted(abs(float(edge) - float(b)), float(limit), max(abs(float(edge)), abs(float(b))))
