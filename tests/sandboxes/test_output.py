from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rollmill.sandboxes.output import CappedOutput


@given(st.lists(st.binary(max_size=60)), st.integers(2, 50))
def test_both_ends_are_kept_whatever_the_pieces(pieces, most):
    output = CappedOutput(most)
    for piece in pieces:
        output.add(piece)
    complete, half = b"".join(pieces), most // 2
    assert output.full == (len(complete) > 2 * half)
    if not output.full:
        assert output.text() == complete.decode(errors="replace")
    else:
        head, tail = complete[:half].decode(errors="replace"), complete[-half:].decode(errors="replace")
        dropped = len(complete) - 2 * half
        assert output.text() == f"{head}\n[{dropped} bytes of output are left out here]\n{tail}"


def test_kept_output_is_bounded():
    output = CappedOutput(1000)
    for _ in range(1000):
        output.add(b"x" * 700)
        assert len(output._head) + len(output._tail) <= 2500
    output.add(b"end")
    assert output.text().endswith("xend")
