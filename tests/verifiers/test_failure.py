from rollmill.verifiers.failure import VerifierFailed, describe


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def test_every_error_has_one_line():
    assert describe(ValueError("two\n lines")) == "ValueError: two lines"
    assert "MuteError" in describe(MuteError())
    assert len(describe(ValueError("x" * 10_000))) == 500
    assert VerifierFailed("verifier_died", "a\nb").message == "a b"
